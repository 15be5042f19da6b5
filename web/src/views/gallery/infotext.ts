import { problemOf } from '@/api/problems'

/** Return the text that A1111 and its relatives read, as it stands in a picture's file. */
export async function infotextIn(url: string): Promise<string> {
  const file = await fetch(url)
  if (!file.ok) throw problemOf(await file.json().catch(() => undefined), file.status)
  const image = await dataUrlOf(await file.blob())
  const answer = await fetch('/sdapi/v1/png-info', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ image }),
  })
  if (!answer.ok) throw problemOf(undefined, answer.status)
  const { info } = (await answer.json()) as { info: string }
  if (!info) throw new Error("The picture's file does not say how it was made.")
  return info
}

/** Return a file as a `data:` URL. */
export function dataUrlOf(file: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader()
    reader.onload = () => resolve(String(reader.result))
    reader.onerror = () => reject(new Error('The file cannot be read.'))
    reader.readAsDataURL(file)
  })
}
