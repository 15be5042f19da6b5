import { onActivated, onBeforeUnmount, onDeactivated, onMounted } from 'vue'

/** So long after it broke off something is tried again. */
export const AGAIN_MS = 4000

/**
 * Ask a question when the component appears, when the page is looked at again, and again and again while both last; never twice at once.
 * Returns a way to ask at once: when the question is under way, it is asked once more after it, for what it asks may have changed.
 */
export function usePolling(question: () => Promise<void>, everyMs: number): () => Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined
  let shown = false
  let again = false
  let asking: Promise<void> | null = null

  async function run(): Promise<void> {
    clearTimeout(timer)
    do {
      again = false
      await question()
    } while (again)
    asking = null
    if (shown && !document.hidden) timer = setTimeout(() => void ask(), everyMs)
  }

  function ask(): Promise<void> {
    if (asking !== null) again = true
    else asking = run()
    return asking
  }

  function look(): void {
    clearTimeout(timer)
    if (shown && !document.hidden && asking === null) void ask()
  }

  function show(): void {
    if (shown) return
    shown = true
    document.addEventListener('visibilitychange', look)
    look()
  }

  function hide(): void {
    shown = false
    document.removeEventListener('visibilitychange', look)
    clearTimeout(timer)
  }

  onMounted(show)
  onActivated(show)
  onDeactivated(hide)
  onBeforeUnmount(hide)
  return ask
}
