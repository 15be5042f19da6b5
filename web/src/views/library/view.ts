import { Library } from '@lucide/vue'

import type { View } from '@/view'

export default {
  name: 'library',
  path: '/library',
  title: 'Library',
  icon: Library,
  order: 40,
  component: () => import('./LibraryView.vue'),
} satisfies View
