import { ref, type Ref } from 'vue'

import { sentenceOf } from '@/api/problems'
import { useToasts } from '@/stores/toasts'

export interface Attempts {
  /** The name of what is being done; null when nothing is. */
  busy: Ref<string | null>
  attempt: (what: () => Promise<unknown>, name?: string) => Promise<void>
}

/** Do things that may fail: what goes wrong is said in a toast, and nothing is thrown. */
export function useAttempt(): Attempts {
  const toasts = useToasts()
  const busy = ref<string | null>(null)

  async function attempt(what: () => Promise<unknown>, name = 'work'): Promise<void> {
    busy.value = name
    try {
      await what()
    } catch (error) {
      toasts.say(sentenceOf(error), 'error')
    } finally {
      busy.value = null
    }
  }

  return { busy, attempt }
}
