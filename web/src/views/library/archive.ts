import { problemOf } from '@/api/problems'
import type { components } from '@/api/schema'
import type { ImportReport } from './types'

export type Export = components['schemas']['Export']
export type Conflict = 'skip' | 'rename' | 'replace'

/** Fetch an archive and hand it to the browser as a file. */
export async function saveArchive(wanted: Export, arrived: (bytes: number) => void): Promise<void> {
  const answer = await fetch('/v1/archives/export', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(wanted),
  }).catch(() => null)
  if (!answer?.body) throw problemOf(undefined, undefined)
  if (!answer.ok) throw problemOf(await answer.json().catch(() => undefined), answer.status)
  const name = /filename="([^"]+)"/.exec(answer.headers.get('content-disposition') ?? '')?.[1] ?? 'imagefleet.zip'
  let bytes = 0
  const counted = answer.body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, out) {
        bytes += chunk.byteLength
        arrived(bytes)
        out.enqueue(chunk)
      },
    }),
  )
  const address = URL.createObjectURL(await new Response(counted).blob())
  const link = document.createElement('a')
  link.href = address
  link.download = name
  link.click()
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(address), 60_000)
}

/** Send an archive and return what became of it, or with a dry run what would. */
export async function sendArchive(file: File, conflict: Conflict, dryRun: boolean): Promise<ImportReport> {
  const query = new URLSearchParams({ conflict, dry_run: String(dryRun) })
  const answer = await fetch(`/v1/archives/import?${query}`, {
    method: 'POST',
    headers: { 'content-type': 'application/zip' },
    body: file,
  }).catch(() => null)
  if (!answer) throw problemOf(undefined, undefined)
  const said: unknown = await answer.json().catch(() => undefined)
  if (!answer.ok) throw problemOf(said, answer.status)
  return said as ImportReport
}
