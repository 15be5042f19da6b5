import type { Line, Metric, Picture, Series } from './types'

/** More lines than this are not told apart at a glance. */
const MOST = 6
/** What can be added up: the less busy ones then become one line, and nothing is missing from the whole. */
const SUMS: ReadonlySet<Metric> = new Set(['jobs', 'pictures', 'failed', 'busy_s'])

const TITLES: Record<Metric, string> = {
  jobs: 'Jobs',
  pictures: 'Pictures',
  failed: 'Failed jobs',
  error_share: 'Share of failures',
  busy_s: 'Seconds of drawing',
  wait_p50_s: 'Half began within',
  wait_p95_s: '95 of 100 began within',
  seconds_p50_s: 'Half were drawn within',
  seconds_p95_s: '95 of 100 were drawn within',
}

/** Make one chart of what was read: of one series its lines, of several a line each. */
export function pictureOf(read: readonly Series[]): Picture {
  const [first] = read
  if (first === undefined) return { times: [], stepS: 0, lines: [] }
  const lines = read.flatMap((series) => (series.by === 'all' ? whole(series) : split(series)))
  return { times: first.times, stepS: first.step_s, lines }
}

function whole(series: Series): Line[] {
  return series.items.map((line) => ({ label: TITLES[series.metric], values: line.values }))
}

function split(series: Series): Line[] {
  const named = series.items.map((line) => ({ label: line.is_rest ? 'others' : line.name || 'none', values: line.values }))
  if (named.length <= MOST) return named
  const shown = named.slice(0, MOST - 1)
  if (!SUMS.has(series.metric)) return [...shown, ...named.slice(MOST - 1, MOST)]
  const rest = named.slice(MOST - 1)
  const values = series.times.map((_, place) => rest.reduce((sum, line) => sum + (line.values[place] ?? 0), 0))
  return [...shown, { label: 'others', values }]
}

/** Tell whether there is anything to see. */
export function isEmpty(picture: Picture): boolean {
  return picture.lines.every((line) => line.values.every((value) => !value))
}

/** Say a chart in a sentence, for those who do not see it. */
export function inWords(title: string, picture: Picture, write: (value: number) => string): string {
  if (isEmpty(picture)) return `${title}: nothing in this stretch of time.`
  const most = picture.lines.map((line) => {
    const values = line.values.filter((value) => value !== null)
    return values.length ? `${line.label} at most ${write(Math.max(...values))}` : `${line.label} nothing`
  })
  return `${title}, ${picture.times.length} steps: ${most.join('; ')}.`
}
