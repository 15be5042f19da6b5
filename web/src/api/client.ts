import createClient, { type Middleware } from 'openapi-fetch'

import { problemOf } from './problems'
import type { paths } from './schema'

type Listener = () => void
const signedOut = new Set<Listener>()

/** Call a function whenever the server no longer knows who this is. */
export function onSignedOut(listener: Listener): void {
  signedOut.add(listener)
}

const watchSession: Middleware = {
  onResponse({ request, response }) {
    if (response.status === 401 && new URL(request.url).pathname !== '/v1/session') {
      signedOut.forEach((listener) => listener())
    }
  },
}

/** The API, typed by the server's own `/openapi.json`; the session's cookie says who calls. */
export const api = createClient<paths>({ baseUrl: '', credentials: 'same-origin' })
api.use(watchSession)

interface Answer<Data> {
  data?: Data
  error?: unknown
  response: Response
}

/** Return what the API answered, or throw a `ProblemError` that a person can read. */
export async function ask<Data>(call: Promise<Answer<Data>>): Promise<Data> {
  let answer: Answer<Data>
  try {
    answer = await call
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error
    throw problemOf(undefined, undefined)
  }
  if (!answer.response.ok) throw problemOf(answer.error, answer.response.status)
  return answer.data as Data
}
