import { api, ask } from '@/api/client'
import type { Action, Changes, Detail, Entry, Marks } from './types'
import { isModel } from './types'

// Models and adapters have doors of their own that do the same.

export async function readEntry(entry: Entry): Promise<Detail> {
  const params = { path: { id: entry.id } }
  if (!isModel(entry)) return ask(api.GET('/v1/adapters/{id}', { params }))
  return modelDetail(await ask(api.GET('/v1/models/{id}', { params })))
}

export async function changeEntry(entry: Entry, body: Changes): Promise<Detail> {
  const params = { path: { id: entry.id } }
  if (!isModel(entry)) return ask(api.PATCH('/v1/adapters/{id}', { params, body }))
  return modelDetail(await ask(api.PATCH('/v1/models/{id}', { params, body })))
}

export async function deleteEntry(entry: Entry): Promise<void> {
  const params = { path: { id: entry.id } }
  await ask(isModel(entry) ? api.DELETE('/v1/models/{id}', { params }) : api.DELETE('/v1/adapters/{id}', { params }))
}

export async function markEntry(entry: Entry, body: Marks): Promise<Entry['marks']> {
  const params = { path: { id: entry.id } }
  return ask(isModel(entry) ? api.PUT('/v1/models/{id}/marks', { params, body }) : api.PUT('/v1/adapters/{id}/marks', { params, body }))
}

export async function versionsOf(entry: Entry): Promise<Entry[]> {
  const params = { path: { id: entry.id } }
  const page = isModel(entry)
    ? await ask(api.GET('/v1/models/{id}/versions', { params }))
    : await ask(api.GET('/v1/adapters/{id}/versions', { params }))
  return page.items
}

export async function addPreview(entry: Entry, image: string): Promise<void> {
  const params = { path: { id: entry.id } }
  const body = { image }
  await ask(
    isModel(entry) ? api.POST('/v1/models/{id}/previews', { params, body }) : api.POST('/v1/adapters/{id}/previews', { params, body }),
  )
}

export async function removePreview(entry: Entry, n: number): Promise<void> {
  const params = { path: { id: entry.id, n } }
  await ask(isModel(entry) ? api.DELETE('/v1/models/{id}/previews/{n}', { params }) : api.DELETE('/v1/adapters/{id}/previews/{n}', { params }))
}

/** Do one thing to many; each shelf does it to all of its own or to none. */
export async function changeMany(entries: readonly Entry[], action: Action, tags: string[] = []): Promise<void> {
  const models = entries.filter(isModel).map((entry) => entry.id)
  const adapters = entries.filter((entry) => !isModel(entry)).map((entry) => entry.id)
  if (adapters.length) await ask(api.POST('/v1/adapters/bulk', { body: { action, ids: adapters, tags } }))
  if (models.length) await ask(api.POST('/v1/models/bulk', { body: { action, ids: models, tags } }))
}

/** A model's own door shows its name as `id`, as OpenAI's clients want it. */
function modelDetail<Found extends { entry_id: string }>(found: Found): Found & { id: string } {
  return { ...found, id: found.entry_id }
}
