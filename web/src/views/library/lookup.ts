import { onBeforeUnmount, ref } from 'vue'

import { api, ask } from '@/api/client'
import { sentenceOf } from '@/api/problems'
import { useToasts } from '@/stores/toasts'
import type { Entry } from './types'

const EVERY_MS = 1000
const ENDED = new Set(['succeeded', 'failed', 'cancelled'])

/** Have entries looked up on CivitAI by their hashes, and say what came of it. */
export function useLookup(done: () => void) {
  const toasts = useToasts()
  const looking = ref(false)
  let left = false
  onBeforeUnmount(() => (left = true))

  async function lookUp(entries: readonly Entry[]): Promise<void> {
    looking.value = true
    try {
      let lookup = await ask(api.POST('/v1/library/lookups', { body: { entries: entries.map((entry) => entry.id) } }))
      while (!ENDED.has(lookup.state) && !left) {
        await new Promise((wake) => setTimeout(wake, EVERY_MS))
        lookup = await ask(api.GET('/v1/library/lookups/{id}', { params: { path: { id: lookup.id } } }))
      }
      if (lookup.state === 'failed') toasts.say(lookup.error_message ?? 'The look-up failed.', 'error')
      else if (!left) toasts.say(`CivitAI knows ${lookup.found} of ${lookup.total}; ${lookup.changed} changed.`)
      done()
    } catch (error) {
      toasts.say(sentenceOf(error), 'error')
    } finally {
      looking.value = false
    }
  }

  return { looking, lookUp }
}
