import type { View } from '@/view'

export default {
  name: 'sign-out',
  path: '/sign-out',
  title: 'Sign out',
  order: 0,
  open: true,
  component: () => import('./SignOutView.vue'),
} satisfies View
