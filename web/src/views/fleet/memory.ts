import type { Ledger } from './types'

/** A stretch of the bar: parts of the same role, e.g. every UNet. */
export interface Stretch {
  role: string
  bytes: number
  share: number
  /** Whose parts they are. */
  names: string[]
}

const ROLES: Record<string, string> = {
  unet: 'UNet',
  transformer: 'Transformer',
  vae: 'VAE',
  lora: 'LoRA',
  controlnet: 'ControlNet',
  embedding: 'Embedding',
  upscaler: 'Upscaler',
  preprocessor: 'Preprocessor',
  checkpoint: 'Model',
}

/** Sum up what an engine holds by role, the largest first, so that the bar stays readable however many models are warm. */
export function stretches(ledger: Ledger): Stretch[] {
  const found = new Map<string, Stretch>()
  for (const part of ledger.components ?? []) {
    const role = roleOf(part.component || part.kind)
    const stretch = found.get(role) ?? { role, bytes: 0, share: 0, names: [] }
    stretch.bytes += part.bytes
    for (const name of [part.name, ...(part.shared_with ?? [])]) {
      if (!stretch.names.includes(name)) stretch.names.push(name)
    }
    found.set(role, stretch)
  }
  // What is held may pass what was planned for; the bar then shows it full.
  const whole = Math.max(ledger.capacity_bytes, held(ledger), 1)
  return [...found.values()]
    .map((stretch) => ({ ...stretch, share: stretch.bytes / whole }))
    .sort((one, other) => other.bytes - one.bytes)
}

export function held(ledger: Ledger): number {
  return (ledger.components ?? []).reduce((sum, part) => sum + part.bytes, 0)
}

function roleOf(part: string): string {
  if (part.startsWith('text_encoder')) return 'Text encoder'
  return ROLES[part] ?? part.replaceAll('_', ' ')
}
