import type { Range } from './types'

export interface Preset {
  name: string
  title: string
  hours: number
}

/** Ranges that end now. */
export const PRESETS: readonly Preset[] = [
  { name: '1h', title: 'Hour', hours: 1 },
  { name: '24h', title: 'Day', hours: 24 },
  { name: '7d', title: 'Week', hours: 24 * 7 },
  { name: '30d', title: '30 days', hours: 24 * 30 },
  { name: '365d', title: 'Year', hours: 24 * 365 },
]

/** Return the range of a preset that ends at a moment. */
export function rangeOf(preset: Preset, now: Date): Range {
  return { since: new Date(now.getTime() - preset.hours * 3_600_000).toISOString(), until: now.toISOString() }
}

/** Read what a `datetime-local` field holds; undefined for what is no moment. */
export function momentOf(text: string): string | undefined {
  const moment = new Date(text)
  return Number.isNaN(moment.getTime()) ? undefined : moment.toISOString()
}

/** Write a moment as a `datetime-local` field wants it: this place's time, to the minute. */
export function fieldOf(moment: string): string {
  const at = new Date(moment)
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16)
}

/** Name the step that begins at a moment; long steps are whole days of UTC. */
export function stepLabel(time: string, stepS: number, spanS: number): string {
  const at = new Date(time)
  if (stepS >= 86_400) return at.toLocaleDateString(undefined, { day: 'numeric', month: 'short', timeZone: 'UTC' })
  const clock = at.toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' })
  if (spanS <= 26 * 3600) return clock
  return `${at.toLocaleDateString(undefined, { day: 'numeric', month: 'short' })} ${clock}`
}
