import { defineStore } from 'pinia'
import { ref } from 'vue'

export interface Toast {
  id: number
  text: string
  kind: 'note' | 'error'
}

const SHOWN_MS = { note: 4000, error: 9000 }

/** Short messages that go by themselves. */
export const useToasts = defineStore('toasts', () => {
  const items = ref<Toast[]>([])
  let last = 0

  function say(text: string, kind: Toast['kind'] = 'note'): void {
    const id = ++last
    items.value = [...items.value.filter((toast) => toast.text !== text), { id, text, kind }]
    setTimeout(() => dismiss(id), SHOWN_MS[kind])
  }

  function dismiss(id: number): void {
    items.value = items.value.filter((toast) => toast.id !== id)
  }

  return { items, say, dismiss }
})
