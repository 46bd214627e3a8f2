import { readFile } from 'node:fs/promises'
import * as z from 'zod'
import { TmsError } from '../errors.ts'
import { parseYaml } from '../yaml.ts'

/** Who may send webhooks, and what each becomes. */
export type Sources = ReadonlyMap<string, Source>
export type Source = {
  readonly function: string
  readonly tenant: string
  /** The field of the body that names the event: senders send again, and the same event makes one task. */
  readonly key: string | null
  readonly priority: number
}

const file = z.strictObject({
  sources: z.record(
    z.string().regex(/^[a-z][a-z0-9-]{0,62}$/, 'a source is named in lower-case letters, digits and "-"'),
    z.strictObject({
      function: z.string().regex(/^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$/, 'a function is named like loads.updated'),
      tenant: z.string().min(1).max(100),
      key: z.string().min(1).max(100).nullable().default(null),
      priority: z.int().min(-1).max(1).default(0),
    }),
  ),
})

export function parseSources(path: string, text: string): Sources {
  const parsed = parseYaml(text, file)
  if ('value' in parsed) return new Map(Object.entries(parsed.value.sources))
  const { line, column, message } = parsed.problem
  throw new TmsError({
    code: 'POLICY_INVALID',
    what: `${path}:${line}:${column} is wrong`,
    why: message,
    next: [`open ${path} at line ${line}`],
  })
}

export async function readSources(path: string): Promise<Sources> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'nothing more'
    throw new TmsError(
      {
        code: 'FILE_UNREADABLE',
        what: `${path} can't be read`,
        why: `the system says ${code}`,
        next: [`ls -l ${path}`],
      },
      { cause },
    )
  }
  return parseSources(path, text)
}
