import { ref, watch, type Ref } from 'vue'

import { api, ask } from '@/api/client'
import { sentenceOf } from '@/api/problems'
import { spanOf } from '@/texts'
import { lacking, requestOf, type Recipe } from '@/recipe'
import { useCatalogue } from '@/stores/catalogue'

const SETTLED_MS = 700

/** Ask the server what would become of the form, whenever it has settled; nothing is stored by that. */
export function useEstimate(form: Ref<Recipe>): { text: Ref<string>; refused: Ref<boolean> } {
  const catalogue = useCatalogue()
  const text = ref('')
  const refused = ref(false)
  let timer: ReturnType<typeof setTimeout> | undefined
  let asked: AbortController | undefined

  async function estimate() {
    asked?.abort()
    asked = new AbortController()
    const traits = catalogue.model(form.value.model)
    const missing = lacking(form.value, traits)
    refused.value = false
    if (!catalogue.loaded) {
      text.value = ''
      return
    }
    if (missing) {
      text.value = missing
      return
    }
    try {
      const answer = await ask(
        api.POST('/v1/jobs', { params: { query: { dry_run: true } }, body: requestOf(form.value, traits), signal: asked.signal }),
      )
      if ('id' in answer) return
      const wait = answer.eta_s == null ? 'Nobody knows yet how long it takes' : `About ${spanOf(answer.eta_s)}`
      const ahead = answer.position > 1 ? `, ${answer.position - 1} ahead` : ''
      const away = answer.waiting_for?.startsWith('a worker') ? `: it would wait for ${answer.waiting_for}` : ''
      text.value = `${wait}${ahead}${away}`
    } catch (error) {
      if (error instanceof DOMException) return
      text.value = sentenceOf(error)
      refused.value = true
    }
  }

  watch(
    [form, () => catalogue.loaded],
    () => {
      clearTimeout(timer)
      timer = setTimeout(() => void estimate(), SETTLED_MS)
    },
    { deep: true, immediate: true },
  )
  return { text, refused }
}
