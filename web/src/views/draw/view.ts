import { Paintbrush } from '@lucide/vue'

import type { View } from '@/view'

export default {
  name: 'draw',
  path: '/draw',
  title: 'Draw',
  icon: Paintbrush,
  order: 10,
  component: () => import('./DrawView.vue'),
} satisfies View
