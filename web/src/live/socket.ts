/** One event of a job, as the server tells it. */
export interface JobEvent {
  id: string
  job: string
  type: 'queued' | 'started' | 'progress' | 'preview' | 'image' | 'requeued' | 'succeeded' | 'failed' | 'cancelled' | 'gone'
  at: string
  data: Record<string, unknown>
}

export const FINAL_EVENTS: ReadonlySet<JobEvent['type']> = new Set(['succeeded', 'failed', 'cancelled', 'gone'])

const PATH = '/v1/ws/progress'
const PROTOCOL = 'imagefleet.v1'
const FIRST_PAUSE_MS = 500
const LONGEST_PAUSE_MS = 15_000
const SIGNED_OUT = 4401
/** Events are handed on together so often: fifty jobs that stream previews then cost a page a few updates a second. */
const TOGETHER_MS = 50

/**
 * The events of all jobs of the page over one WebSocket. It opens with the first job, comes back by itself after a cut, and then goes on
 * where it was without gap or repeat.
 */
export class ProgressSocket {
  private socket: WebSocket | null = null
  private readonly last = new Map<string, string>()
  private waiting: JobEvent[] = []
  private timer: ReturnType<typeof setTimeout> | undefined
  private pause = FIRST_PAUSE_MS
  private reconnecting: ReturnType<typeof setTimeout> | undefined

  constructor(
    private readonly hear: (events: JobEvent[]) => void,
    private readonly connected: (open: boolean) => void,
  ) {}

  /** Watch jobs until each has ended. */
  watch(jobs: readonly string[]): void {
    const fresh = jobs.filter((job) => !this.last.has(job))
    if (fresh.length === 0) return
    fresh.forEach((job) => this.last.set(job, ''))
    if (this.socket?.readyState === WebSocket.OPEN) this.subscribe(fresh)
    else this.open()
  }

  /** Forget everything and hang up. */
  close(): void {
    clearTimeout(this.reconnecting)
    clearTimeout(this.timer)
    this.last.clear()
    this.waiting = []
    this.socket?.close(1000)
    this.socket = null
  }

  private open(): void {
    if (this.socket !== null && this.socket.readyState <= WebSocket.OPEN) return
    clearTimeout(this.reconnecting)
    const socket = new WebSocket(`${location.origin.replace(/^http/, 'ws')}${PATH}`, [PROTOCOL])
    this.socket = socket
    socket.onopen = () => {
      this.pause = FIRST_PAUSE_MS
      this.connected(true)
      this.subscribe([...this.last.keys()])
    }
    socket.onmessage = (message: MessageEvent<string>) => this.take(JSON.parse(message.data) as Record<string, unknown>)
    socket.onclose = (event) => {
      if (this.socket !== socket) return
      this.socket = null
      this.connected(false)
      if (this.last.size === 0 || event.code === SIGNED_OUT) return
      this.reconnecting = setTimeout(() => this.open(), this.pause)
      this.pause = Math.min(this.pause * 2, LONGEST_PAUSE_MS)
    }
  }

  private subscribe(jobs: readonly string[]): void {
    const after = Object.fromEntries(jobs.flatMap((job) => (this.last.get(job) ? [[job, this.last.get(job)]] : [])))
    this.socket?.send(JSON.stringify({ type: 'subscribe', jobs, after }))
  }

  private take(message: Record<string, unknown>): void {
    if (message['type'] === 'subscribed') {
      for (const job of message['not_found'] as string[]) this.queue({ id: '', job, type: 'gone', at: '', data: {} })
    } else if (typeof message['job'] === 'string') {
      this.queue({ id: '', at: '', data: {}, ...message } as JobEvent)
    }
  }

  private queue(event: JobEvent): void {
    if (FINAL_EVENTS.has(event.type)) this.last.delete(event.job)
    else if (this.last.has(event.job)) this.last.set(event.job, event.id)
    this.waiting.push(event)
    this.timer ??= setTimeout(() => {
      this.timer = undefined
      const events = this.waiting
      this.waiting = []
      this.hear(events)
    }, TOGETHER_MS)
  }
}
