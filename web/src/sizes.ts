import type { ModelView } from '@/api/types'

export interface Size {
  width: number
  height: number
}

/** A picture with more pixels than a model's own times this is drawn from a smaller copy. */
const MOST_TIMES = 4

/** Return the sizes of the usual shapes that a model draws well. */
export function presetSizes(model: ModelView): { value: string; text: string }[] {
  return model.aspects.map(({ ratio, width, height }) => {
    const shape = width === height ? 'Square' : width < height ? `Portrait ${ratio}` : `Landscape ${ratio}`
    return { value: `${width}x${height}`, text: shape }
  })
}

/** Return the size that a model draws a picture of this one's shape at: the picture's own, or of a large one the model's pixels. */
export function sizeLike(picture: Size, model: ModelView): Size {
  const { native_size: side, size_step: step, min_side: least, max_side: most } = model
  const pixels = picture.width * picture.height
  const factor = pixels > MOST_TIMES * side * side ? Math.sqrt((side * side) / pixels) : 1
  const near = (length: number) => {
    const within = Math.min(most, Math.max(least, length * factor))
    return Math.min(Math.floor(most / step) * step, Math.max(Math.ceil(least / step) * step, Math.round(within / step) * step))
  }
  return { width: near(picture.width), height: near(picture.height) }
}
