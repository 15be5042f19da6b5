import '@/styles/tokens.css'
import '@/styles/base.css'

import { createPinia } from 'pinia'
import { createApp } from 'vue'

import App from '@/App.vue'
import { onSignedOut } from '@/api/client'
import { makeRouter } from '@/router'
import { useSession } from '@/stores/session'
import { useTheme } from '@/stores/theme'

const pinia = createPinia()
const session = useSession(pinia)
useTheme(pinia).apply()

const router = makeRouter(session)
onSignedOut(() => {
  session.forget()
  if (router.currentRoute.value.meta['open'] === true) return
  void router.push({ name: 'sign-in', query: { next: router.currentRoute.value.fullPath } })
})

createApp(App).use(pinia).use(router).mount('#app')

if (import.meta.env.PROD && 'serviceWorker' in navigator) {
  // After everything that the first view needs.
  addEventListener('load', () => void navigator.serviceWorker.register('/sw.js', { scope: '/' }))
}
