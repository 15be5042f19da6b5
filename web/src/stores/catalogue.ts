import { defineStore } from 'pinia'
import { computed, ref } from 'vue'

import { api, ask } from '@/api/client'
import type { AdapterView, ModelView, PreprocessorView, SchedulerView } from '@/api/types'

/** So many entries of the library come at once. */
const PAGE = 1000

interface Page<Item> {
  items: Item[]
  next_cursor?: string | null
}

/** Read a list to its end, however many entries there are. */
async function all<Item>(page: (query: { limit: number; cursor?: string }) => Promise<Page<Item>>): Promise<Item[]> {
  const found: Item[] = []
  let query: { limit: number; cursor?: string } | null = { limit: PAGE }
  while (query !== null) {
    const { items, next_cursor: cursor }: Page<Item> = await page(query)
    found.push(...items)
    query = cursor ? { limit: PAGE, cursor } : null
  }
  return found
}

/** What can be asked for: models, and what goes beside them. */
export const useCatalogue = defineStore('catalogue', () => {
  const models = ref<ModelView[]>([])
  const adapters = ref<AdapterView[]>([])
  const schedulers = ref<SchedulerView[]>([])
  const preprocessors = ref<PreprocessorView[]>([])
  const loaded = ref(false)
  const standard = computed(() => models.value.find((model) => model.is_default) ?? models.value[0])

  async function load(): Promise<void> {
    const [known, beside, sampling, preparing] = await Promise.all([
      all((query) => ask(api.GET('/v1/models', { params: { query } }))),
      all((query) => ask(api.GET('/v1/adapters', { params: { query } }))),
      ask(api.GET('/v1/schedulers')),
      ask(api.GET('/v1/preprocessors')),
    ])
    models.value = known
    adapters.value = beside
    schedulers.value = sampling.items
    preprocessors.value = preparing.items.filter((each) => each.available)
    loaded.value = true
  }

  function model(name: string): ModelView | undefined {
    return models.value.find((each) => each.name === name)
  }

  /** Adapters of a kind that fit a model. */
  function fitting(kind: AdapterView['kind'], name: string): AdapterView[] {
    const found = model(name)
    return adapters.value.filter(
      (each) =>
        each.kind === kind &&
        (found === undefined || each.family === 'any' || each.family === found.family) &&
        (each.text_width == null || found?.text_width == null || each.text_width === found.text_width),
    )
  }

  /** Checkpoints that can take over in the last steps of a model. */
  function refinersOf(model: ModelView): ModelView[] {
    return model.takes_refiner ? models.value.filter((each) => each.family === model.family && each.variant === 'refiner') : []
  }

  return { models, adapters, schedulers, preprocessors, loaded, standard, load, model, fitting, refinersOf }
})
