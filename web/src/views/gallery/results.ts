import { computed, reactive, ref, shallowRef, watch, type ComputedRef, type Ref, type ShallowRef } from 'vue'

import { api, ask } from '@/api/client'
import { mayPass, sentenceOf } from '@/api/problems'
import type { ResultView } from '@/api/types'

const PAGE = 200
const SETTLED_MS = 300

export interface Filters {
  q: string
  model: string
  label: string
  since: string
  until: string
}

export interface Results {
  filters: Filters
  items: ShallowRef<readonly ResultView[]>
  problem: Ref<string | null>
  /** Read again what failed for a while only. */
  again: () => Promise<void>
  loading: Ref<boolean>
  complete: ComputedRef<boolean>
  more: () => Promise<void>
  refresh: () => Promise<void>
  remove: (keys: ReadonlySet<string>) => void
}

/** Name one picture. */
export function keyOf(picture: { job: string; index: number }): string {
  return `${picture.job}/${picture.index}`
}

/** One's pictures, newest first, fetched page by page as they are looked at. */
export function useResults(): Results {
  const filters = reactive<Filters>({ q: '', model: '', label: '', since: '', until: '' })
  const items = shallowRef<readonly ResultView[]>([])
  const problem = ref<string | null>(null)
  let passing = false
  const loading = ref(false)
  const cursor = ref<string | null | undefined>(undefined)
  const complete = computed(() => cursor.value === null)
  let turn = 0
  let timer: ReturnType<typeof setTimeout> | undefined

  function query() {
    return {
      mine: true,
      ...(filters.q.trim() ? { q: filters.q.trim() } : {}),
      ...(filters.model ? { model: filters.model } : {}),
      ...(filters.label.includes(':') ? { labels: filters.label } : {}),
      ...(filters.since ? { since: new Date(`${filters.since}T00:00:00`).toISOString() } : {}),
      ...(filters.until ? { until: dayAfter(filters.until) } : {}),
    }
  }

  async function more(): Promise<void> {
    if (loading.value || complete.value) return
    loading.value = true
    const mine = ++turn
    try {
      const page = await ask(
        api.GET('/v1/results', { params: { query: { ...query(), limit: PAGE, ...(cursor.value ? { cursor: cursor.value } : {}) } } }),
      )
      if (mine !== turn) return
      items.value = cursor.value === undefined ? page.items : [...items.value, ...page.items]
      cursor.value = page.next_cursor
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

  /** Take in what was drawn since the first page was fetched. */
  async function refresh(): Promise<void> {
    if (cursor.value === undefined) return more()
    const mine = turn
    const page = await ask(api.GET('/v1/results', { params: { query: { ...query(), limit: 50 } } })).catch(() => null)
    if (!page || mine !== turn) return
    const known = new Set(items.value.map(keyOf))
    const fresh = page.items.filter((item) => !known.has(keyOf(item)))
    if (fresh.length) items.value = [...fresh, ...items.value]
  }

  async function again(): Promise<void> {
    if (passing) await more()
  }

  function remove(keys: ReadonlySet<string>): void {
    items.value = items.value.filter((item) => !keys.has(keyOf(item)))
  }

  watch(filters, () => {
    clearTimeout(timer)
    timer = setTimeout(() => {
      turn += 1
      loading.value = false
      cursor.value = undefined
      void more()
    }, SETTLED_MS)
  })

  return { filters, items, problem, loading, complete, more, again, refresh, remove }
}

function dayAfter(day: string): string {
  const date = new Date(`${day}T00:00:00`)
  date.setDate(date.getDate() + 1)
  return date.toISOString()
}
