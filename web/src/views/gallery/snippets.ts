import type { Parameters } from '@/recipe'

/** What the server works out by itself, or does not take back. */
const WORKED_OUT = new Set(['preview_every', 'source_width', 'source_height', 'upscaler_scale'])

/** Return the parameters as a request that draws the same. */
function requestIn(parameters: Parameters): Record<string, unknown> {
  const kept = Object.entries(parameters).filter(([name, value]) => !WORKED_OUT.has(name) && !isEmpty(value))
  return Object.fromEntries(parameters.task === 'upscale' ? kept.filter(([name]) => !['width', 'height'].includes(name)) : kept)
}

function isEmpty(value: unknown): boolean {
  return value === null || value === undefined || (typeof value === 'object' && Object.keys(value).length === 0)
}

/** Return a shell command that draws the same. */
export function curlOf(parameters: Parameters, origin: string): string {
  const body = JSON.stringify(requestIn(parameters), null, 2).replaceAll("'", "'\\''")
  return `curl -H "Authorization: Bearer $IMAGEFLEET_API_KEY" -H "Content-Type: application/json" \\\n  ${origin}/v1/jobs -d '${body}'\n`
}

/** Return a Python program that draws the same, tells of each step and writes the pictures beside itself. */
export function pythonOf(parameters: Parameters, origin: string): string {
  return `import os
from pathlib import Path

from client.client import Client

with Client("${origin}", os.environ["IMAGEFLEET_API_KEY"]) as fleet:
    job = fleet.submit(${literalOf(requestIn(parameters), 1)})
    for event in fleet.events(job.id):
        print(event.type, event.data.get("step", ""))
    for image in fleet.read(job.id).images:
        Path(f"{job.id}-{image.index}.${parameters.output?.format ?? 'png'}").write_bytes(fleet.picture(job.id, image))
`
}

function literalOf(value: unknown, depth: number): string {
  const [inner, outer] = ['    '.repeat(depth + 1), '    '.repeat(depth)]
  if (value === null) return 'None'
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (Array.isArray(value)) return `[${value.map((each) => literalOf(each, depth)).join(', ')}]`
  if (typeof value === 'object') {
    const lines = Object.entries(value as object).map(([name, each]) => `${inner}${JSON.stringify(name)}: ${literalOf(each, depth + 1)},\n`)
    return `{\n${lines.join('')}${outer}}`
  }
  return JSON.stringify(value)
}
