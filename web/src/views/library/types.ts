import type { components } from '@/api/schema'
import type { AdapterView, ModelView } from '@/api/types'

type Schemas = components['schemas']

/** What a list shows: a checkpoint, or what a job may name beside one. */
export type Entry = AdapterView | ModelView
/** One entry with everything that is known of it. */
export type Detail = Entry & Pick<Schemas['AdapterDetail'], 'files' | 'metadata'>
export type Kind = Entry['kind']
export type Marks = Schemas['SetMarks']
export type Changes = Schemas['ChangeEntry']
export type Action = Schemas['Action']
export type TagCount = Schemas['TagCount']
export type Usage = Schemas['AdapterUsage']
export type Advice = Schemas['Recommendations']
export type RecipeView = Schemas['RecipeView']
export type Compose = Schemas['Compose']
export type Composition = Schemas['Composition']
export type Download = Schemas['Download']
export type ArchiveFilter = Schemas['ArchiveFilter']
export type Estimate = Schemas['Estimate']
export type ImportReport = Schemas['ImportReport']

/** Every kind with what it is called, in the order in which people look for them. */
export const KINDS: readonly { kind: Kind; one: string; many: string }[] = [
  { kind: 'checkpoint', one: 'Checkpoint', many: 'Checkpoints' },
  { kind: 'lora', one: 'LoRA', many: 'LoRAs' },
  { kind: 'controlnet', one: 'ControlNet', many: 'ControlNets' },
  { kind: 'embedding', one: 'Embedding', many: 'Embeddings' },
  { kind: 'vae', one: 'VAE', many: 'VAEs' },
  { kind: 'upscaler', one: 'Upscaler', many: 'Upscalers' },
  { kind: 'preprocessor', one: 'Preprocessor', many: 'Preprocessors' },
]

/** What a stack may hold. */
const STACKED: ReadonlySet<Kind> = new Set(['lora', 'embedding', 'vae'])

export function isModel(entry: Entry): entry is ModelView {
  return entry.kind === 'checkpoint'
}

export function isStackable(entry: Entry): boolean {
  return STACKED.has(entry.kind)
}

export function kindName(kind: string): string {
  return KINDS.find((each) => each.kind === kind)?.one ?? kind
}

/** Take a text apart at its commas. */
export function partsOf(text: string): string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean)
}
