import { onBeforeUnmount, ref, watch, type Ref } from 'vue'

import { api, ask } from '@/api/client'
import type { TokenCounts } from '@/api/types'

const SETTLED_MS = 300

export interface Prompts {
  model: string
  prompt: string
  negative: string
}

/** Count the tokens of the prompts as the model's text encoder does, whenever they have settled; null while nobody knows. */
export function useTokenCounts(prompts: () => Prompts): Ref<TokenCounts | null> {
  const counts = ref<TokenCounts | null>(null)
  let timer: ReturnType<typeof setTimeout> | undefined
  let asked: AbortController | undefined

  async function count({ model, prompt, negative }: Prompts) {
    asked?.abort()
    asked = new AbortController()
    try {
      const body = { model, prompt, negative_prompt: negative }
      counts.value = await ask(api.POST('/v1/prompts/tokens', { body, signal: asked.signal }))
    } catch (error) {
      // The estimate says what is wrong with the form; a count is only left out.
      if (!(error instanceof DOMException)) counts.value = null
    }
  }

  watch(
    prompts,
    (now, before) => {
      clearTimeout(timer)
      if (before && now.model !== before.model) counts.value = null
      if (now.model) timer = setTimeout(() => void count(now), SETTLED_MS)
    },
    { immediate: true },
  )
  onBeforeUnmount(() => {
    clearTimeout(timer)
    asked?.abort()
  })
  return counts
}
