import { onBeforeUnmount, onMounted, ref, shallowRef, type Ref, type ShallowRef } from 'vue'

import { api, ask } from '@/api/client'
import { sentenceOf } from '@/api/problems'
import type { BatchSummary, JobView } from '@/api/types'

const AGAIN_MS = 2000
/** So many lines are shown; what waits behind them is counted. */
const MOST_SHOWN = 200

/** Priorities go from the first to the last. */
export const FIRST = 0
export const LAST = 9

export function priorityOf(job: JobView): number {
  return job.request.priority ?? 5
}

/** What runs stands before what waits, and that as it will be drawn: by priority, then by its place in its queue. */
function drawnBefore(one: JobView, other: JobView): number {
  const waits = Number(one.state === 'queued') - Number(other.state === 'queued')
  if (waits || one.state !== 'queued') return waits || (one.id < other.id ? -1 : 1)
  return priorityOf(one) - priorityOf(other) || (one.position ?? 0) - (other.position ?? 0) || (one.id < other.id ? -1 : 1)
}

export interface Queue {
  jobs: ShallowRef<readonly JobView[]>
  batches: ShallowRef<readonly BatchSummary[]>
  more: Ref<boolean>
  problem: Ref<string | null>
  loaded: Ref<boolean>
  look: () => Promise<void>
}

/** What waits and runs, looked at again and again while the page is seen. */
export function useQueue(mine: Ref<boolean>): Queue {
  const jobs = shallowRef<readonly JobView[]>([])
  const batches = shallowRef<readonly BatchSummary[]>([])
  const more = ref(false)
  const problem = ref<string | null>(null)
  const loaded = ref(false)
  let timer: ReturnType<typeof setTimeout> | undefined
  let gone = false

  async function look(): Promise<void> {
    clearTimeout(timer)
    try {
      const [page, all] = await Promise.all([
        ask(api.GET('/v1/jobs', { params: { query: { active: true, mine: mine.value, limit: MOST_SHOWN } } })),
        ask(api.GET('/v1/batches', { params: { query: { mine: mine.value, limit: 50 } } })),
      ])
      batches.value = all.items.filter((batch) => batch.state === 'active')
      // A batch is one line.
      jobs.value = page.items.filter((job) => !job.batch).sort(drawnBefore)
      more.value = page.next_cursor !== null
      problem.value = null
      loaded.value = true
    } catch (error) {
      problem.value = sentenceOf(error)
    }
    if (!gone) timer = setTimeout(() => void look(), document.hidden ? AGAIN_MS * 10 : AGAIN_MS)
  }

  onMounted(() => void look())
  onBeforeUnmount(() => {
    gone = true
    clearTimeout(timer)
  })

  return { jobs, batches, more, problem, loaded, look }
}
