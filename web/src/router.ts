import { createRouter, createWebHistory, type Router, type RouteRecordRaw } from 'vue-router'

import { VIEWS } from '@/view'
import type { useSession } from '@/stores/session'

/** Make the router from the views; who is not signed in is led to the sign-in and then to where they wanted to go. */
export function makeRouter(session: ReturnType<typeof useSession>): Router {
  const routes: RouteRecordRaw[] = VIEWS.map((view) => ({
    path: view.path,
    name: view.name,
    component: view.component,
    meta: { title: view.title, open: view.open === true, admin: view.admin === true },
    children: view.children ?? [],
  }))
  const router = createRouter({
    history: createWebHistory('/'),
    routes: [...routes, { path: '/', redirect: '/draw' }, { path: '/:rest(.*)*', redirect: '/draw' }],
    scrollBehavior: (_to, _from, saved) => saved ?? { top: 0 },
  })
  router.beforeEach(async (to) => {
    await session.know().catch(() => session.forget())
    if (!session.signedIn && to.meta['open'] !== true) {
      return { name: 'sign-in', query: to.path === '/draw' ? {} : { next: to.fullPath } }
    }
    if (session.signedIn && to.name === 'sign-in') return { name: 'draw' }
    if (to.meta['admin'] === true && !session.isAdmin) return { name: 'draw' }
    return true
  })
  router.afterEach((to) => {
    document.title = `${String(to.meta['title'] ?? 'Imagefleet')} · Imagefleet`
  })
  return router
}
