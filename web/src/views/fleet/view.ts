import { Server } from '@lucide/vue'

import type { View } from '@/view'

export default {
  name: 'fleet',
  path: '/fleet',
  title: 'Fleet',
  icon: Server,
  order: 50,
  component: () => import('./FleetView.vue'),
} satisfies View
