import { defineStore } from 'pinia'
import { computed, ref } from 'vue'

import { api, ask } from '@/api/client'
import type { AdapterView, ModelView, PreprocessorView, SchedulerView } from '@/api/types'

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
      ask(api.GET('/v1/models')),
      ask(api.GET('/v1/adapters')),
      ask(api.GET('/v1/schedulers')),
      ask(api.GET('/v1/preprocessors')),
    ])
    models.value = known.items
    adapters.value = beside.items
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
