import { ChartLine } from '@lucide/vue'

import type { View } from '@/view'

export default {
  name: 'analytics',
  path: '/analytics',
  title: 'Analytics',
  icon: ChartLine,
  order: 60,
  component: () => import('./AnalyticsView.vue'),
} satisfies View
