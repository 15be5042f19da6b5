import type { ModelView } from '@/api/types'

/** Return the sizes of the usual shapes that a model draws well. */
export function presetSizes(model: ModelView): { value: string; text: string }[] {
  return model.aspects.map(({ ratio, width, height }) => {
    const shape = width === height ? 'Square' : width < height ? `Portrait ${ratio}` : `Landscape ${ratio}`
    return { value: `${width}x${height}`, text: shape }
  })
}
