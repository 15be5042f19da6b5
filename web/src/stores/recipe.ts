import { defineStore } from 'pinia'
import { ref, watch } from 'vue'

import type { ModelView } from '@/api/types'
import { useCatalogue } from '@/stores/catalogue'
import { useSession } from '@/stores/session'
import { blankRecipe, recipeOf, type Parameters, type Picture, type Recipe } from '@/recipe'
import { sizeLike } from '@/sizes'

/** Presets stay in the browser, each owner's under a name of their own: several people may sit at one. */
const KEPT = 'imagefleet.presets.'
/** What the form holds outlasts a reload of its tab, and ends with the session. */
const FORM = 'imagefleet.form.'

/** What the Draw view's form holds; every view may put something into it. */
export const useRecipe = defineStore('recipe', () => {
  const catalogue = useCatalogue()
  const session = useSession()
  const form = ref<Recipe>({ ...blankRecipe(), ...read<Recipe>(sessionStorage, FORM + session.owner) })
  const presets = ref<Record<string, Recipe>>(read(localStorage, KEPT + session.owner))
  watch(form, (now) => session.signedIn && sessionStorage.setItem(FORM + session.owner, JSON.stringify(now)), { deep: true })

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
    takeShape()
  }

  /** Draw at the shape of the picture one starts from, of which nothing is then cut off. */
  function takeShape(): void {
    const { source, task } = form.value
    const model = catalogue.model(form.value.model)
    if (source?.width && model && (task === 'img2img' || task === 'inpaint')) Object.assign(form.value, sizeLike(source, model))
  }

  /** Put a picture's parameters back into the form. */
  function takeParameters(parameters: Parameters): void {
    form.value = recipeOf(parameters, form.value)
  }

  /** Begin from a picture: as source, as ground for a mask, or to be enlarged; with what was said of it where the form says nothing. */
  function takePicture(picture: Picture, task: 'img2img' | 'inpaint' | 'upscale', said?: Parameters | null): void {
    if (said && !form.value.prompt.trim()) takeParameters(said)
    form.value.task = task
    takeSource(picture)
    if (task !== 'upscale') chooseModelFor(task)
  }

  function takeSource(picture: Picture | null): void {
    form.value.source = picture
    form.value.mask = null
    takeShape()
  }

  /** Keep the model where it does the task; else take one that does: of its family if there is one, else the usual one. */
  function chooseModelFor(task: Recipe['task']): void {
    const now = catalogue.model(form.value.model)
    if (now?.tasks.includes(task)) return
    const distance = (model: ModelView) => 2 * Number(model.family !== now?.family) + Number(!model.is_default)
    const [found] = catalogue.models.filter((model) => model.tasks.includes(task)).sort((one, other) => distance(one) - distance(other))
    if (found) takeModel(found)
  }

  /** Do a task, with a model that does it. */
  function takeTask(task: Recipe['task']): void {
    const before = form.value.task
    form.value.task = task
    if (task !== 'upscale') chooseModelFor(task)
    // Whoever goes from one to the other keeps the size they chose.
    if (before === 'txt2img' || before === 'upscale') takeShape()
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

  return { form, presets, takeModel, takeParameters, takePicture, takeSource, takeTask, keepPreset, takePreset, forgetPreset }
})

function plain<Value>(value: Value): Value {
  return JSON.parse(JSON.stringify(value)) as Value
}

/** Read what was kept under a name; nothing where it is none or damaged. */
function read<Kept extends object>(storage: Storage, name: string): Kept {
  try {
    const found: unknown = JSON.parse(storage.getItem(name) ?? '{}')
    return (typeof found === 'object' && found !== null ? found : {}) as Kept
  } catch {
    return {} as Kept
  }
}
