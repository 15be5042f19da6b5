import type { Component } from 'vue'
import type { RouteRecordRaw } from 'vue-router'

/**
 * One view of the application. A folder `views/<name>/` whose `view.ts` exports one by default is all it takes: its route, its place in
 * the navigation and its own chunk follow from it.
 */
export interface View {
  /** Name of the route, and of the folder. */
  name: string
  /** Address, beginning with a slash; `broker_api/web_app.py` lists it too, so that it can be opened directly. */
  path: string
  title: string
  /** Shown in the navigation; without one the view is reached by links alone. */
  icon?: Component
  /** Place in the navigation, the smallest first. */
  order: number
  component: () => Promise<Component>
  /** For admins alone. */
  admin?: boolean
  /** For everybody, signed in or not. */
  open?: boolean
  children?: RouteRecordRaw[]
}

const found = import.meta.glob<View>('./views/*/view.ts', { eager: true, import: 'default' })

/** All views, in the order of the navigation. */
export const VIEWS: readonly View[] = Object.values(found).sort((one, other) => one.order - other.order)
