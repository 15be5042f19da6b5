import type { ModelView } from '@/api/types'

const SHAPES = [
  [1, 1, 'Square'],
  [3, 4, 'Portrait 3:4'],
  [4, 3, 'Landscape 4:3'],
  [9, 16, 'Tall 9:16'],
  [16, 9, 'Wide 16:9'],
] as const

/** Return sizes with about as many pixels as the model was trained on, as its steps allow. */
export function presetSizes(model: ModelView): { value: string; text: string }[] {
  const found = SHAPES.map(([across, down, name]) => {
    const unit = Math.sqrt((model.native_size * model.native_size) / (across * down))
    const [width, height] = [across * unit, down * unit].map((side) => {
      const fitted = Math.round(side / model.size_step) * model.size_step
      return Math.min(model.max_side, Math.max(model.min_side, fitted))
    })
    return { value: `${width}x${height}`, text: `${name}, ${width} × ${height}` }
  })
  return found.filter((each, place) => found.findIndex((other) => other.value === each.value) === place)
}
