import type { View } from '@/view'

export default {
  name: 'sign-in',
  path: '/sign-in',
  title: 'Sign in',
  order: 0,
  open: true,
  component: () => import('./SignInView.vue'),
} satisfies View
