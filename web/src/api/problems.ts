import type { components } from './schema'

type Problem = components['schemas']['Problem']

/** Why the server refused, in its own words; `code` is stable. */
export class ProblemError extends Error {
  constructor(
    message: string,
    readonly code: string,
    readonly field: string | null,
    readonly status: number | undefined,
  ) {
    super(message)
    this.name = 'ProblemError'
  }
}

/** Read a problem document; what is none becomes a problem of its own. */
export function problemOf(body: unknown, status: number | undefined): ProblemError {
  if (isProblem(body)) return new ProblemError(body.detail, body.code, body.field ?? null, status)
  if (status === undefined) return new ProblemError('The server does not answer. Is it running?', 'unreachable', null, status)
  return new ProblemError(`The server answered with status ${status}.`, 'unexpected', null, status)
}

/** Tell whether a problem may pass by itself: the server is away or did not manage, and asking again is not asking something else. */
export function mayPass(error: unknown): boolean {
  return error instanceof ProblemError && (error.status === undefined || error.status >= 500)
}

/** Say in one sentence what went wrong, whatever was thrown. */
export function sentenceOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function isProblem(body: unknown): body is Problem {
  return typeof body === 'object' && body !== null && 'code' in body && 'detail' in body
}
