import { problemOf } from '@/api/problems'
import type { UploadView } from '@/api/types'
import type { Picture } from '@/recipe'

export const PICTURE_TYPES = ['image/png', 'image/jpeg', 'image/webp']

/** Send a picture and return it as requests name it; the same picture sent again is the same upload. */
export async function upload(file: Blob): Promise<Picture> {
  const answer = await fetch('/v1/uploads', { method: 'POST', body: file, headers: { 'content-type': file.type } }).catch(() => null)
  if (!answer) throw problemOf(undefined, undefined)
  const said: unknown = await answer.json().catch(() => undefined)
  if (!answer.ok) throw problemOf(said, answer.status)
  const view = said as UploadView
  return { name: `upload:${view.id}`, url: `/v1/uploads/${view.id}`, width: view.width, height: view.height }
}

/** Return the first picture among what was dropped or pasted. */
export function pictureIn(data: DataTransfer | null): File | undefined {
  return [...(data?.files ?? [])].find((file) => PICTURE_TYPES.includes(file.type))
}
