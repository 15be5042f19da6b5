import { Settings } from '@lucide/vue'

import type { View } from '@/view'

export default {
  name: 'settings',
  path: '/settings',
  title: 'Settings',
  icon: Settings,
  order: 70,
  component: () => import('./SettingsView.vue'),
} satisfies View
