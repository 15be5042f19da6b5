import { defineStore } from 'pinia'
import { ref } from 'vue'

import { api, ask } from '@/api/client'
import type { AdapterView } from '@/api/types'
import { markEntry } from './doors'
import { isModel, type Entry } from './types'

const MOST = 200

/** The adapters one composes with, in their order; kept by the server. */
export const useStack = defineStore('stack', () => {
  const items = ref<AdapterView[]>([])
  /** The order as it is being written: one after the other, so that the last one holds. */
  let kept = Promise.resolve()

  async function load(): Promise<void> {
    const page = await ask(api.GET('/v1/adapters', { params: { query: { active: true, limit: MOST } } }))
    const place = (entry: AdapterView) => entry.marks.position ?? Number.MAX_SAFE_INTEGER
    items.value = [...page.items].sort((one, other) => place(one) - place(other))
  }

  function has(entry: Entry): boolean {
    return items.value.some((each) => each.id === entry.id)
  }

  async function toggle(entry: Entry): Promise<void> {
    if (isModel(entry)) return
    const active = !has(entry)
    await markEntry(entry, { active })
    await load()
  }

  async function weigh(entry: AdapterView, weight: number): Promise<void> {
    entry.marks = { ...entry.marks, weight }
    await markEntry(entry, { weight })
  }

  /** Show a new order at once; `keepOrder` makes it last. */
  function move(from: number, to: number): void {
    const moved = items.value[from]
    if (!moved || to < 0 || to >= items.value.length || from === to) return
    const now = [...items.value]
    now.splice(from, 1)
    now.splice(to, 0, moved)
    items.value = now
  }

  function keepOrder(): Promise<void> {
    kept = kept.catch(() => undefined).then(writeOrder)
    return kept
  }

  async function writeOrder(): Promise<void> {
    for (const [place, entry] of items.value.entries()) {
      const position = place + 1
      if (entry.marks.position !== position) entry.marks = await markEntry(entry, { position })
    }
  }

  /** Wait until the server knows what is shown. */
  async function settled(): Promise<void> {
    await kept.catch(() => undefined)
  }

  async function clear(): Promise<void> {
    const ids = items.value.map((each) => each.id)
    if (ids.length) await ask(api.POST('/v1/adapters/bulk', { body: { action: 'deactivate', ids } }))
    items.value = []
  }

  return { items, load, has, toggle, weigh, move, keepOrder, settled, clear }
})

/** What an adapter of the stack is used with. */
export function weightOf(entry: AdapterView): number {
  return entry.marks.weight ?? entry.weight ?? 1
}
