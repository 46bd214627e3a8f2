import * as z from 'zod'
import type { Priority } from '../drivers/contract/incidents.ts'
import { TmsError } from '../errors.ts'
import { words } from './words.ts'

/** What an alarm says: `{"level","type","description"}`. */
export type Alarm = {
  readonly priority: Priority
  readonly type: string
  readonly description: string
  /** The lever that this type pulls; none: an incident of that level is opened. */
  readonly lever: Lever | null
}
export type Lever = 'emergency_stop' | 'soft_degrade' | 'rollback'

const levels = { critical: 'P1', high: 'P2', medium: 'P3', low: 'P4' } as const satisfies Record<string, Priority>
const levers: readonly Lever[] = ['emergency_stop', 'soft_degrade', 'rollback']
const longest = 1000

const alarm = z.object({
  level: z.enum(['critical', 'high', 'medium', 'low']),
  type: z.string().regex(/^[a-z][a-z0-9_.-]{0,79}$/, 'a word in lower case'),
  description: z.string().min(1).max(longest),
})

export function readAlarm(text: string): Alarm {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw wrong('it is no JSON')
  }
  // First of all: whoever stops the fleet is not sent back for the form of the rest.
  const lever = leverOf(value)
  if (lever !== null) return { priority: 'P1', type: lever, description: descriptionOf(value), lever }
  const parsed = alarm.safeParse(value)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw wrong(`${issue?.path.join('.') || 'it'}: ${issue?.message ?? 'not accepted'}`)
  }
  const { level, type, description } = parsed.data
  return { priority: levels[level], type, description: words(description, longest), lever: null }
}

function leverOf(value: unknown): Lever | null {
  const type = field(value, 'type')
  if (typeof type !== 'string') return null
  const word = type
    .trim()
    .toLowerCase()
    .replace(/[\s-]+/g, '_')
  return levers.find((lever) => lever === word) ?? null
}

function descriptionOf(value: unknown): string {
  const description = field(value, 'description')
  return typeof description === 'string' ? words(description, longest) : ''
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}

function wrong(why: string): TmsError {
  return new TmsError({
    code: 'USAGE',
    what: 'This alarm is not understood.',
    why,
    next: [`tms incident handle '{"level":"critical","type":"system_failure","description":"rates do not load"}'`],
  })
}
