import { defineStore } from 'pinia'
import { ref } from 'vue'

import type { ModelView } from '@/api/types'
import { useCatalogue } from '@/stores/catalogue'
import { useSession } from '@/stores/session'
import { blankRecipe, recipeOf, type Parameters, type Picture, type Recipe } from '@/recipe'

/** Presets stay in the browser, each owner's under a name of their own: several people may sit at one. */
const KEPT = 'imagefleet.presets.'

/** What the Draw view's form holds; every view may put something into it. */
export const useRecipe = defineStore('recipe', () => {
  const catalogue = useCatalogue()
  const session = useSession()
  const form = ref<Recipe>(blankRecipe())
  const presets = ref<Record<string, Recipe>>(readPresets(KEPT + session.owner))

  /** Take a model's own defaults for what depends on it. */
  function takeModel(model: ModelView): void {
    Object.assign(form.value, {
      model: model.name,
      width: model.native_size,
      height: model.native_size,
      steps: model.default_steps,
      guidance: model.default_guidance_scale,
      scheduler: model.default_scheduler,
      schedule: '',
    })
    const fits = (kind: 'lora' | 'controlnet', name: string) => catalogue.fitting(kind, model.name).some((each) => each.name === name)
    form.value.loras = form.value.loras.filter((lora) => fits('lora', lora.name))
    form.value.controls = model.reads_control
      ? [{ ...(form.value.controls[0] ?? { picture: null, preprocessor: '', scale: 1, start: 0, end: 1 }), model: '' }]
      : form.value.controls.filter((control) => fits('controlnet', control.model))
    if (!catalogue.refinersOf(model).some((each) => each.name === form.value.refiner?.model)) form.value.refiner = null
  }

  /** Put a picture's parameters back into the form. */
  function takeParameters(parameters: Parameters): void {
    form.value = recipeOf(parameters, form.value)
  }

  /** Begin from a picture: as source, as ground for a mask, or to be enlarged. */
  function takePicture(picture: Picture, task: 'img2img' | 'inpaint' | 'upscale'): void {
    form.value.task = task
    form.value.source = picture
    form.value.mask = null
    if (task !== 'upscale') chooseModelFor(task)
  }

  /** Keep the model where it does the task; else take the first that does. */
  function chooseModelFor(task: Recipe['task']): void {
    if (catalogue.model(form.value.model)?.tasks.includes(task)) return
    const found = catalogue.models.find((model) => model.tasks.includes(task))
    if (found) takeModel(found)
  }

  function keepPreset(name: string): void {
    presets.value = { ...presets.value, [name]: { ...structuredClone(plain(form.value)), source: null, mask: null, controls: [] } }
    localStorage.setItem(KEPT + session.owner, JSON.stringify(presets.value))
  }

  function takePreset(name: string): void {
    const preset = presets.value[name]
    if (preset) form.value = { ...blankRecipe(), ...structuredClone(plain(preset)) }
  }

  function forgetPreset(name: string): void {
    presets.value = Object.fromEntries(Object.entries(presets.value).filter(([each]) => each !== name))
    localStorage.setItem(KEPT + session.owner, JSON.stringify(presets.value))
  }

  return { form, presets, takeModel, takeParameters, takePicture, chooseModelFor, keepPreset, takePreset, forgetPreset }
})

function plain<Value>(value: Value): Value {
  return JSON.parse(JSON.stringify(value)) as Value
}

function readPresets(kept: string): Record<string, Recipe> {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(kept) ?? '{}')
    return typeof found === 'object' && found !== null ? (found as Record<string, Recipe>) : {}
  } catch {
    return {}
  }
}
