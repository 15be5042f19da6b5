import { useRouter } from 'vue-router'

import { api, ask } from '@/api/client'
import { useCatalogue } from '@/stores/catalogue'
import { useRecipe } from '@/stores/recipe'
import { useToasts } from '@/stores/toasts'
import type { Recipe } from '@/recipe'
import type { Compose, Composition, Entry } from './types'

/** What a model is used for: the first of these that it does. */
const TASKS = ['txt2img', 'img2img', 'inpaint'] as const

/** Put models, stacks and recipes into the Draw view's form and go there. */
export function useComposing() {
  const catalogue = useCatalogue()
  const recipe = useRecipe()
  const toasts = useToasts()
  const router = useRouter()

  /** Compose a stack around what the form says already. */
  async function useStack(asked: Pick<Compose, 'loras'>, entries: readonly Entry[]): Promise<void> {
    await catalogue.load()
    const chosen = catalogue.model(recipe.form.model)
    const stays = chosen !== undefined && entries.every((each) => each.family === 'any' || each.family === chosen.family)
    const prompt = recipe.form.prompt.replace(/<lora:[^<>]*>/gi, '').replace(/^[\s,]+|[\s,]+$/g, '')
    await take({ ...asked, prompt, negative_prompt: recipe.form.negative, ...(stays ? { model: chosen.name } : {}) })
  }

  async function useKept(id: string): Promise<void> {
    await catalogue.load()
    await take({ recipe: id, skip_missing: true })
  }

  async function useModel(entry: Entry): Promise<void> {
    await catalogue.load()
    const model = catalogue.models.find((each) => each.id === entry.id)
    if (model) {
      if (!model.tasks.includes(recipe.form.task)) recipe.form.task = TASKS.find((task) => model.tasks.includes(task)) ?? 'txt2img'
      recipe.takeModel(model)
    }
    await show()
  }

  async function take(asked: Compose): Promise<void> {
    const made = await ask(api.POST('/v1/compose', { body: asked }))
    const model = catalogue.models.find((each) => each.ref === made.model) ?? catalogue.model(made.model)
    if (model && model.name !== recipe.form.model) recipe.takeModel(model)
    // The tags of the prompt say which LoRAs; the form's own list would say it twice.
    Object.assign(recipe.form, { task: 'txt2img', prompt: made.prompt, negative: made.negative_prompt, loras: [] }, settingsOf(made))
    made.warnings.forEach((warning) => toasts.say(warning))
    await show()
  }

  async function show(): Promise<void> {
    await router.push('/draw')
    scrollTo({ top: 0 })
  }

  return { useStack, useKept, useModel }
}

/** Return those of a composition's settings that the form has. */
function settingsOf({ settings }: Composition): Partial<Recipe> {
  const names = {
    width: 'width',
    height: 'height',
    steps: 'steps',
    guidance_scale: 'guidance',
    scheduler: 'scheduler',
    schedule_type: 'schedule',
    seed: 'seed',
    num_images: 'count',
  } as const
  return Object.fromEntries(
    Object.entries(names).flatMap(([from, to]) => (settings[from] === undefined ? [] : [[to, settings[from]]])),
  ) as Partial<Recipe>
}
