/** Return a span of time as people say it: `8 s`, `3 min`, `2 h 5 min`. */
export function spanOf(seconds: number): string {
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1).replace(/\.0$/, '')} s`
  if (seconds < 90) return `${Math.round(seconds)} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 60) return `${minutes} min`
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

/** Return how long ago something was. */
export function agoOf(time: string, now = Date.now()): string {
  const seconds = (now - Date.parse(time)) / 1000
  if (seconds < 5) return 'just now'
  return seconds < 86_400 ? `${spanOf(seconds)} ago` : new Date(time).toLocaleDateString()
}

/** Return a size in bytes as people read it. */
export function bytesOf(bytes: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB']
  let size = bytes
  let unit = 0
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000
    unit += 1
  }
  return `${size >= 100 || unit === 0 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`
}

const TASKS: Record<string, string> = {
  txt2img: 'Text to picture',
  img2img: 'Picture to picture',
  inpaint: 'Inpaint',
  upscale: 'Enlarge',
  preprocess: 'Preprocess',
}

/** Return what a task is called. */
export function taskName(task: string): string {
  return TASKS[task] ?? task
}

/** Copy a text and return whether the browser allowed it. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    return copySelected(text)
  }
}

/** Browsers have no clipboard for pages that came by plain HTTP, as from another machine at home; a selection they copy. */
function copySelected(text: string): boolean {
  const before = document.activeElement
  // Inside the dialog that is open, which lets the focus go nowhere else.
  const home = before?.closest('[role="dialog"]') ?? document.body
  const field = document.createElement('textarea')
  field.className = 'unseen'
  field.value = text
  home.append(field)
  field.select()
  const copied = document.execCommand('copy')
  field.remove()
  if (before instanceof HTMLElement) before.focus()
  return copied
}
