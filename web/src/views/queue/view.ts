import { ListOrdered } from '@lucide/vue'

import type { View } from '@/view'

export default {
  name: 'queue',
  path: '/queue',
  title: 'Queue',
  icon: ListOrdered,
  order: 30,
  component: () => import('./QueueView.vue'),
} satisfies View
