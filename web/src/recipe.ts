import type { components } from '@/api/schema'

type Schemas = components['schemas']
export type JobRequest =
  | Schemas['Txt2ImgRequest']
  | Schemas['Img2ImgRequest']
  | Schemas['InpaintRequest']
  | Schemas['UpscaleRequest']
export type Parameters = Schemas['JobView']['request']

/** A picture that a request can name, and where to see it. */
export interface Picture {
  /** `upload:<id>` or `job:<id>/<n>`. */
  name: string
  url: string
  width: number
  height: number
}

/** What of a model decides which fields a request has. */
export type Traits = Pick<Schemas['ModelView'], 'takes_negative_prompt' | 'takes_guidance_scale' | 'takes_refiner' | 'reads_control'>

/** Of a model that is not known, nothing is left out: the server says what it does not take. */
const UNKNOWN: Traits = { takes_negative_prompt: true, takes_guidance_scale: true, takes_refiner: true, reads_control: false }

export interface ControlEntry {
  /** Empty where the checkpoint reads the picture itself. */
  model: string
  picture: Picture | null
  preprocessor: string
  scale: number
  start: number
  end: number
}

/** The Draw view's form: what a person chooses, before it becomes a request. */
export interface Recipe {
  task: 'txt2img' | 'img2img' | 'inpaint' | 'upscale'
  prompt: string
  negative: string
  model: string
  width: number
  height: number
  steps: number
  guidance: number
  scheduler: string
  schedule: string
  /** -1 draws a new one each time. */
  seed: number
  count: number
  priority: number
  loras: { name: string; weight: number }[]
  controls: ControlEntry[]
  source: Picture | null
  mask: Picture | null
  strength: number
  maskBlur: number
  maskedContent: 'original' | 'fill' | 'noise' | 'nothing'
  maskedArea: 'whole' | 'masked'
  hires: { scale: number; strength: number; upscaler: string } | null
  refiner: { model: string; switchAt: number } | null
  upscaler: string
  upscale: number
}

export function blankRecipe(): Recipe {
  return {
    task: 'txt2img',
    prompt: '',
    negative: '',
    model: '',
    width: 512,
    height: 512,
    steps: 20,
    guidance: 7,
    scheduler: '',
    schedule: '',
    seed: -1,
    count: 1,
    priority: 5,
    loras: [],
    controls: [],
    source: null,
    mask: null,
    strength: 0.6,
    maskBlur: 4,
    maskedContent: 'original',
    maskedArea: 'whole',
    hires: null,
    refiner: null,
    upscaler: '',
    upscale: 2,
  }
}

/** What is said where nothing is to be drawn yet. */
export const NO_PROMPT = 'Say what to draw.'

/** Say what is still missing before a recipe can be drawn; nothing when it can. */
export function lacking(recipe: Recipe, traits: Traits = UNKNOWN): string | null {
  if (recipe.task !== 'txt2img' && !recipe.source) return 'Choose a picture to start from.'
  if (recipe.task === 'inpaint' && !recipe.mask) return 'Paint over the part that is to be drawn anew.'
  if (recipe.task === 'upscale') return null
  if (!recipe.model) return 'No model is registered yet.'
  if (!recipe.prompt.trim()) return NO_PROMPT
  if (traits.reads_control && !recipe.controls[0]?.picture) return 'Choose the control picture that this model draws after.'
  const control = recipe.controls.find((each) => !each.picture)
  return control ? 'Choose a picture for the ControlNet, or take it out.' : null
}

/** Turn a recipe for which nothing is lacking into the request that draws it with a model of these traits. */
export function requestOf(recipe: Recipe, traits: Traits = UNKNOWN): JobRequest {
  const image = recipe.source?.name ?? ''
  const common = { seed: recipe.seed, priority: recipe.priority }
  if (recipe.task === 'upscale') {
    const chosen = recipe.upscaler ? { upscaler: recipe.upscaler } : {}
    return { ...common, task: 'upscale', image, scale: recipe.upscale, ...chosen }
  }
  const drawing = {
    ...common,
    prompt: recipe.prompt,
    ...(traits.takes_negative_prompt ? { negative_prompt: recipe.negative } : {}),
    model: recipe.model,
    width: recipe.width,
    height: recipe.height,
    steps: recipe.steps,
    ...(traits.takes_guidance_scale ? { guidance_scale: recipe.guidance } : {}),
    num_images: recipe.count,
    loras: recipe.loras.map((lora) => ({ name: lora.name, weight: lora.weight })),
    controls: recipe.controls.map((each) => ({
      ...(each.model ? { model: each.model } : {}),
      image: each.picture?.name ?? '',
      scale: each.scale,
      start: each.start,
      end: each.end,
      ...(each.preprocessor ? { preprocessor: each.preprocessor } : {}),
    })),
    ...(recipe.scheduler ? { scheduler: recipe.scheduler } : {}),
    ...(recipe.schedule ? { schedule_type: recipe.schedule } : {}),
  }
  if (recipe.task === 'img2img') return { ...drawing, task: 'img2img', image, strength: recipe.strength }
  if (recipe.task === 'inpaint') {
    return {
      ...drawing,
      task: 'inpaint',
      image,
      mask: recipe.mask?.name ?? '',
      strength: recipe.strength,
      mask_blur: recipe.maskBlur,
      masked_content: recipe.maskedContent,
      inpaint_area: recipe.maskedArea,
    }
  }
  return {
    ...drawing,
    task: 'txt2img',
    ...(recipe.hires ? { hires: recipe.hires } : {}),
    ...(recipe.refiner && traits.takes_refiner ? { refiner: { model: recipe.refiner.model, switch_at: recipe.refiner.switchAt } } : {}),
  }
}

/** Read a recipe back from the parameters of a job or picture; what they do not say stays as it was. */
export function recipeOf(from: Parameters, before: Recipe): Recipe {
  const recipe: Recipe = { ...before, controls: [], loras: [], source: null, mask: null, hires: null, refiner: null, seed: from.seed ?? -1 }
  if ('image' in from) recipe.source = uploaded(from.image, from.width ?? 0, from.height ?? 0)
  if ('upscaler_scale' in from) {
    return {
      ...recipe,
      task: 'upscale',
      source: uploaded(from.image, from.source_width, from.source_height),
      upscaler: from.upscaler,
      upscale: from.scale,
    }
  }
  // What draws nothing has no more to say than its picture.
  if (!('num_images' in from) || !('guidance_scale' in from)) return { ...before, task: 'img2img', source: recipe.source }
  Object.assign(recipe, {
    task: from.task ?? 'txt2img',
    prompt: from.prompt,
    negative: from.negative_prompt ?? '',
    model: from.model,
    width: from.width,
    height: from.height,
    steps: from.steps,
    guidance: from.guidance_scale,
    scheduler: from.scheduler,
    schedule: from.schedule_type ?? '',
    count: from.num_images ?? 1,
    loras: (from.loras ?? []).map((lora) => ({ name: lora.name, weight: lora.weight ?? 1 })),
    controls: (from.controls ?? []).map((each) => ({
      model: each.model ?? '',
      picture: uploaded(each.image, 0, 0),
      preprocessor: each.preprocessor ?? '',
      scale: each.scale ?? 1,
      start: each.start ?? 0,
      end: each.end ?? 1,
    })),
  } satisfies Partial<Recipe>)
  if ('strength' in from) recipe.strength = from.strength ?? before.strength
  if ('mask_blur' in from || 'masked_content' in from) {
    recipe.mask = from.mask ? uploaded(from.mask, from.width, from.height) : null
    recipe.maskBlur = from.mask_blur ?? 4
    recipe.maskedContent = from.masked_content ?? 'original'
    recipe.maskedArea = from.inpaint_area ?? 'whole'
  }
  if ('hires' in from && from.hires) {
    const { scale, strength, upscaler } = from.hires
    recipe.hires = { scale: scale ?? 2, strength: strength ?? 0.5, upscaler: upscaler ?? 'latent' }
  }
  if ('refiner' in from && from.refiner) recipe.refiner = { model: from.refiner.model, switchAt: from.refiner.switch_at ?? 0.8 }
  return recipe
}

function uploaded(name: string, width: number, height: number): Picture {
  return { name, url: `/v1/uploads/${name.replace(/^upload:/, '')}`, width, height }
}

/** Return a job's parameters as those of one of its pictures: its own seed, one picture. */
export function parametersOfOne(parameters: Parameters, seed: number): Parameters {
  return 'num_images' in parameters ? { ...parameters, seed, num_images: 1 } : { ...parameters, seed }
}
