import { computed, reactive, ref, shallowRef, watch, type ComputedRef, type Ref, type ShallowRef } from 'vue'

import { api, ask } from '@/api/client'
import { mayPass, sentenceOf } from '@/api/problems'
import type { Entry, Kind, TagCount } from './types'

const PAGE = 100
const SETTLED_MS = 300
const MOST_TAGS = 40

export const SORTS = [
  { value: '', text: 'As found' },
  { value: 'name', text: 'Name' },
  { value: 'created', text: 'Newest' },
  { value: 'updated', text: 'Changed last' },
  { value: 'size', text: 'Largest' },
  { value: 'rating', text: 'Best rated' },
  { value: 'uses', text: 'Most used' },
] as const

export interface Filters {
  q: string
  kind: Kind | ''
  family: string
  tags: string[]
  favourite: boolean
  active: boolean
  rating: number
  own: string
  sort: (typeof SORTS)[number]['value']
}

export interface Entries {
  filters: Filters
  items: ShallowRef<readonly Entry[]>
  tags: ShallowRef<readonly TagCount[]>
  problem: Ref<string | null>
  /** Read again what failed for a while only. */
  again: () => Promise<void>
  loading: Ref<boolean>
  complete: ComputedRef<boolean>
  more: () => Promise<void>
  restart: () => Promise<void>
  replace: (entry: Entry) => void
}

type Shelf = 'models' | 'adapters'

/** The library's entries as the filters find them, fetched page by page as they are looked at: models first, then what goes beside them. */
export function useEntries(): Entries {
  const filters = reactive<Filters>({ q: '', kind: '', family: '', tags: [], favourite: false, active: false, rating: 0, own: '', sort: '' })
  const items = shallowRef<readonly Entry[]>([])
  const tags = shallowRef<readonly TagCount[]>([])
  const problem = ref<string | null>(null)
  let passing = false
  const loading = ref(false)
  /** What is still to be read; none when all is. */
  const ahead = ref<{ shelf: Shelf; cursor: string | null } | null>(first(filters))
  const complete = computed(() => ahead.value === null)
  let turn = 0
  let timer: ReturnType<typeof setTimeout> | undefined

  async function more(): Promise<void> {
    if (loading.value || ahead.value === null) return
    loading.value = true
    await read(++turn, items.value)
  }

  async function restart(): Promise<void> {
    ahead.value = first(filters)
    loading.value = true
    await Promise.all([read(++turn, []), count(turn)])
  }

  async function read(mine: number, before: readonly Entry[]): Promise<void> {
    let found = before
    try {
      // A short page of models is followed by the first of the adapters, so that there is something to scroll.
      while (mine === turn && ahead.value !== null && found.length < before.length + PAGE / 2) {
        const { shelf, cursor } = ahead.value
        const page = await readPage(shelf, filters, cursor)
        if (mine !== turn) return
        found = [...found, ...page.items]
        if (page.next_cursor) ahead.value = { shelf, cursor: page.next_cursor }
        else ahead.value = shelf === 'models' && filters.kind === '' ? { shelf: 'adapters', cursor: null } : null
      }
      items.value = found
      problem.value = null
      passing = false
    } catch (error) {
      if (mine !== turn) return
      problem.value = sentenceOf(error)
      passing = mayPass(error)
    } finally {
      if (mine === turn) loading.value = false
    }
  }

  async function again(): Promise<void> {
    if (passing) await more()
  }

  async function count(mine: number): Promise<void> {
    if (filters.kind === 'checkpoint') {
      tags.value = []
      return
    }
    const kind = filters.kind ? { kind: filters.kind } : {}
    const page = await ask(api.GET('/v1/adapters/tags', { params: { query: { ...kind, limit: MOST_TAGS } } })).catch(() => null)
    if (page && mine === turn) tags.value = page.items
  }

  function replace(entry: Entry): void {
    items.value = items.value.map((each) => (each.id === entry.id ? { ...each, ...entry } : each))
  }

  watch(filters, () => {
    clearTimeout(timer)
    timer = setTimeout(() => void restart(), SETTLED_MS)
  })

  return { filters, items, tags, problem, loading, complete, more, again, restart, replace }
}

function first(filters: Filters): { shelf: Shelf; cursor: string | null } {
  return { shelf: filters.kind === '' || filters.kind === 'checkpoint' ? 'models' : 'adapters', cursor: null }
}

async function readPage(shelf: Shelf, filters: Filters, cursor: string | null): Promise<{ items: Entry[]; next_cursor?: string | null }> {
  const query = {
    limit: PAGE,
    ...(filters.q.trim() ? { q: filters.q.trim() } : {}),
    ...(filters.family ? { family: filters.family } : {}),
    ...(filters.tags.length ? { tag: filters.tags.join(',') } : {}),
    ...(filters.favourite ? { favourite: true } : {}),
    ...(filters.active ? { active: true } : {}),
    ...(filters.rating ? { rating: filters.rating } : {}),
    ...(filters.own ? { owner: filters.own } : {}),
    ...(filters.sort ? { sort: filters.sort } : {}),
    ...(cursor ? { cursor } : {}),
  }
  if (shelf === 'models') return ask(api.GET('/v1/models', { params: { query } }))
  const kind = filters.kind && filters.kind !== 'checkpoint' ? { kind: filters.kind } : {}
  return ask(api.GET('/v1/adapters', { params: { query: { ...query, ...kind } } }))
}
