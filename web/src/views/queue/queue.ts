import { onBeforeUnmount, onMounted, ref, shallowRef, type Ref, type ShallowRef } from 'vue'

import { api, ask } from '@/api/client'
import { sentenceOf } from '@/api/problems'
import type { BatchSummary, JobView } from '@/api/types'

const AGAIN_MS = 2000
/** So many lines are shown; what waits behind them is counted. */
const MOST_SHOWN = 200

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
      // A batch is one line; oldest first, as they are drawn.
      jobs.value = page.items.filter((job) => !job.batch).reverse()
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
