import { defineStore } from 'pinia'
import { computed, ref, shallowReactive, triggerRef, shallowRef } from 'vue'

import { api, ask } from '@/api/client'
import type { JobView } from '@/api/types'
import { FINAL_EVENTS, ProgressSocket, type JobEvent } from '@/live/socket'

/** A job as the page follows it. */
export interface LiveJob {
  view: JobView
  /** The forming pictures, by their index, as `data:` URLs. */
  previews: Record<number, string>
}

const MOST_ACTIVE = 100
const MOST_RECENT = 12
const RUNNING = new Set<JobEvent['type']>(['started', 'progress', 'preview', 'image'])

/** Jobs that the page follows, newest first, over one WebSocket. */
export const useJobs = defineStore('jobs', () => {
  const jobs = shallowReactive(new Map<string, ReturnType<typeof shallowRef<LiveJob>>>())
  const connected = ref(true)
  const socket = new ProgressSocket(hear, (open) => (connected.value = open))

  const newest = computed(() =>
    [...jobs.values()].map((job) => job.value as LiveJob).sort((one, other) => (one.view.id < other.view.id ? 1 : -1)),
  )
  const active = computed(() => newest.value.filter((job) => isActive(job.view)))

  /** Follow a job from the view the API gave of it. */
  function follow(view: JobView): void {
    const known = jobs.get(view.id)
    if (known?.value) known.value = { ...known.value, view }
    else jobs.set(view.id, shallowRef<LiveJob>({ view, previews: {} }))
    if (isActive(view)) socket.watch([view.id])
  }

  function find(id: string): LiveJob | undefined {
    return jobs.get(id)?.value
  }

  async function cancel(id: string): Promise<void> {
    follow(await ask(api.POST('/v1/jobs/{id}/cancel', { params: { path: { id } } })))
  }

  /**
   * Take one's own that wait or run, wherever they were sent from, and the last that were drawn or failed: what went wrong while nobody
   * looked is told too. Batches stand in the queue.
   */
  async function followRecent(): Promise<void> {
    const list = async (query: { active: true } | { state: 'succeeded' | 'failed' }, limit: number) =>
      (await ask(api.GET('/v1/jobs', { params: { query: { ...query, mine: true, limit } } }))).items
    const [active, drawn, failed] = await Promise.all([
      list({ active: true }, MOST_ACTIVE),
      list({ state: 'succeeded' }, MOST_RECENT),
      list({ state: 'failed' }, MOST_RECENT),
    ])
    const ended = [...drawn, ...failed].sort((one, other) => (one.id < other.id ? 1 : -1)).slice(0, MOST_RECENT)
    const shown = [...active, ...(jobs.size ? [] : ended)]
    shown.filter((view) => !view.batch).forEach(follow)
  }

  function forget(id: string): void {
    jobs.delete(id)
  }

  function clear(): void {
    socket.close()
    jobs.clear()
  }

  function hear(events: JobEvent[]): void {
    const touched = new Set<string>()
    for (const event of events) {
      const job = jobs.get(event.job)
      if (!job?.value) continue
      job.value = after(job.value, event)
      touched.add(event.job)
      if (event.type === 'gone') jobs.delete(event.job)
      else if (FINAL_EVENTS.has(event.type) || event.type === 'started' || event.type === 'requeued') void renew(event.job)
    }
    touched.forEach((id) => {
      const job = jobs.get(id)
      if (job) triggerRef(job)
    })
  }

  /** Read what events do not tell: pictures, the reason of a failure, what a job waits for. */
  async function renew(id: string): Promise<void> {
    try {
      const view = await ask(api.GET('/v1/jobs/{id}', { params: { path: { id } } }))
      const job = jobs.get(id)
      if (job?.value) job.value = { view, previews: view.state === 'succeeded' ? {} : job.value.previews }
    } catch {
      // The next event, or the next visit, tells.
    }
  }

  return { jobs, newest, active, connected, follow, followRecent, find, cancel, renew, forget, clear }
})

/** Return how many pictures a job draws. */
export function picturesOf({ request }: JobView): number {
  return 'num_images' in request ? (request.num_images ?? 1) : 1
}

export function isActive(view: JobView): boolean {
  return view.state === 'queued' || view.state === 'running'
}

/** Return a job as it is after an event. */
function after(job: LiveJob, event: JobEvent): LiveJob {
  const view = { ...job.view }
  if (RUNNING.has(event.type)) view.state = 'running'
  if (event.type === 'progress') {
    const { step, steps, fraction } = event.data as { step: number; steps: number; fraction: number }
    view.progress = { step, steps, fraction }
  }
  if (event.type === 'requeued' || event.type === 'queued') view.state = 'queued'
  if (event.type === 'preview') {
    const { image, mime, base64 } = event.data as { image: number | null; mime: string; base64: string }
    return { view, previews: { ...job.previews, [image ?? 0]: `data:${mime};base64,${base64}` } }
  }
  return { ...job, view }
}
