import type { components, paths } from '@/api/schema'

type Schemas = components['schemas']

export type Series = Schemas['Series']
export type Summary = Schemas['Summary']
export type Busy = Schemas['Busy']
export type Metric = Series['metric']
export type By = Series['by']
export type SeriesQuery = NonNullable<paths['/v1/analytics/series']['get']['parameters']['query']>

/** A stretch of time. */
export interface Range {
  since: string
  until: string
}

/** One line of a chart; null where there was nothing to tell. */
export interface Line {
  label: string
  values: (number | null)[]
}

/** Everything a chart shows. */
export interface Picture {
  times: string[]
  stepS: number
  lines: Line[]
}
