import { Images } from '@lucide/vue'

import type { View } from '@/view'

export default {
  name: 'gallery',
  path: '/gallery',
  title: 'Gallery',
  icon: Images,
  order: 20,
  component: () => import('./GalleryView.vue'),
  children: [{ path: ':job/:index(\\d+)', name: 'picture', meta: { title: 'Picture' }, component: () => import('./PictureDetail.vue') }],
} satisfies View
