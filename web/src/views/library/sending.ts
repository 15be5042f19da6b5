import { problemOf } from '@/api/problems'

const PIECE = 4 * 1024 * 1024
const TUS = { 'tus-resumable': '1.0.0' }

/** One file on its way to the server in pieces, by tus 1.0: what has arrived stays, whatever breaks off. */
export class Sending {
  private address: string | null = null
  private stopping: AbortController | null = null

  constructor(
    private readonly file: File,
    private readonly arrived: (bytes: number) => void,
  ) {}

  /** Send what is still missing and return the upload's id; raises `AbortError` when stopped. */
  async send(): Promise<string> {
    const stopping = new AbortController()
    this.stopping = stopping
    this.address ??= await this.begin(stopping.signal)
    let offset = await this.offset(stopping.signal)
    while (offset < this.file.size) {
      this.arrived(offset)
      const body = this.file.slice(offset, offset + PIECE)
      const headers = { 'content-type': 'application/offset+octet-stream', 'upload-offset': String(offset) }
      const answer = await say(this.address, { method: 'PATCH', body, headers, signal: stopping.signal })
      offset = Number(answer.headers.get('upload-offset'))
    }
    this.arrived(offset)
    return this.address.split('/').at(-1) ?? ''
  }

  pause(): void {
    this.stopping?.abort()
  }

  /** Forget what has arrived. */
  async cancel(): Promise<void> {
    this.pause()
    if (this.address) await say(this.address, { method: 'DELETE' })
    this.address = null
  }

  private async begin(signal: AbortSignal): Promise<string> {
    const name = btoa(String.fromCharCode(...new TextEncoder().encode(this.file.name)))
    const headers = { 'upload-length': String(this.file.size), 'upload-metadata': `filename ${name}` }
    const answer = await say('/v1/files', { method: 'POST', headers, signal })
    return answer.headers.get('location') ?? ''
  }

  private async offset(signal: AbortSignal): Promise<number> {
    const answer = await say(this.address ?? '', { method: 'HEAD', signal })
    return Number(answer.headers.get('upload-offset'))
  }
}

/** Make a file that has arrived an entry; `fields` are those of `POST /v1/adapters/upload`. */
export async function finish(upload: string, fields: Record<string, string>): Promise<{ ref: string }> {
  const body = new FormData()
  for (const [name, text] of Object.entries({ ...fields, upload })) if (text.trim()) body.append(name, text.trim())
  const answer = await say('/v1/adapters/upload', { method: 'POST', body }, {})
  return (await answer.json()) as { ref: string }
}

async function say(address: string, how: RequestInit, own: Record<string, string> = TUS): Promise<Response> {
  const answer = await fetch(address, { ...how, headers: { ...own, ...how.headers } }).catch((error: unknown) => {
    if (error instanceof DOMException && error.name === 'AbortError') throw error
    throw problemOf(undefined, undefined)
  })
  if (!answer.ok) throw problemOf(await answer.json().catch(() => undefined), answer.status)
  return answer
}
