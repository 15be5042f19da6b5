import type { InjectionKey } from 'vue'

import type { Results } from './results'

/** The pictures of the gallery that a detail belongs to. */
export const GALLERY: InjectionKey<Results> = Symbol('gallery')
