import { createHash } from 'node:crypto'
import * as z from 'zod'
import type { Priority } from '../drivers/contract/incidents.ts'
import { TmsError, type Problem } from '../errors.ts'
import {
  alarmTypesProblem,
  levels,
  leverNamed,
  typeRule,
  type AlarmTypes,
  type Level,
  type Lever,
} from './alarm-types.ts'
import { words } from './words.ts'

/** What an alarm says: `{"level","type","description"}`. */
export type Alarm = {
  readonly priority: Priority
  readonly type: string
  readonly description: string
  /** The lever that this type pulls; none: an incident of that level is opened. */
  readonly lever: Lever | null
  /** The policy that maps types is broken. */
  readonly problem: Problem | null
}

const priorities = { critical: 'P1', high: 'P2', medium: 'P3', low: 'P4' } as const satisfies Record<Level, Priority>
const longest = 1000
const longestType = 80
/** What says something and is in no word that an incident takes. */
const foreign = /(?!\p{ASCII})[\p{L}\p{M}\p{N}\p{S}]/u

/** Whoever sends it is in trouble already: what can be understood is taken, whatever its case, its blanks and its length. */
const alarm = z.object({
  level: z
    .string()
    .transform((level) => level.trim().toLowerCase())
    .pipe(z.enum(levels)),
  type: z
    .string()
    .transform((type) => asWord(type))
    .pipe(z.string().regex(typeRule, 'a word')),
})

/** With a digest where letters are lost: alarms of one type join, and without it all of a script would be one type. */
function asWord(type: string): string {
  const spelled = type.normalize('NFC').trim().toLowerCase()
  if (!foreign.test(spelled)) return inAscii(spelled).slice(0, longestType)
  const digest = createHash('sha256').update(spelled).digest('hex').slice(0, 8)
  const readable = inAscii(spelled).slice(0, longestType - 1 - digest.length)
  return `${readable.replace(/_+$/, '')}_${digest}`
}

function inAscii(type: string): string {
  const word = type
    .trim()
    .toLowerCase()
    .replace(/[^a-z0-9_.-]+/g, '_')
  return /^[^a-z]/.test(word) ? `alarm_${word}` : word
}

/** `policy` is looked at only for types that are no levers by themselves: no file can keep those from being pulled. */
export async function readAlarm(text: string, policy: () => Promise<AlarmTypes>): Promise<Alarm> {
  let value: unknown
  try {
    value = JSON.parse(text.replace(/^\uFEFF/, ''))
  } catch {
    throw wrong('it is no JSON')
  }
  // First of all: whoever stops the fleet is not sent back for the form of the rest.
  const lever = leverOf(value)
  const pull = (by: Lever): Alarm => ({
    priority: by === 'emergency_stop' ? 'P1' : (levelOf(value) ?? 'P2'),
    type: by,
    description: descriptionOf(value),
    lever: by,
    problem: null,
  })
  if (lever !== null) return pull(lever)
  const mapped = await policy()
  const named = field(value, 'type')
  const found = typeof named === 'string' ? mappedType(named, mapped) : undefined
  if (found !== undefined) {
    const [type, means] = found
    if ('lever' in means) return pull(means.lever)
    const description = descriptionOf(value) || foreignType(value) || type
    return { priority: priorities[means.level], type, description, lever: null, problem: null }
  }
  const parsed = alarm.safeParse(value)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw wrong(`${issue?.path.join('.') || 'it'}: ${issue?.message ?? 'not accepted'}`)
  }
  return {
    priority: priorities[parsed.data.level],
    type: parsed.data.type,
    description: descriptionOf(value) || foreignType(value) || parsed.data.type,
    lever: null,
    problem: alarmTypesProblem(mapped),
  }
}

/** What to say where an alarm of one tenant pulls a lever of all of them: it is pulled, as nobody who must stop is sent back. */
export function wholeFleet({ lever }: Alarm, tenant: string | undefined): string | null {
  if (tenant === undefined || lever === null || lever === 'soft_degrade') return null
  return lever === 'rollback'
    ? `A rollback puts back the flags of the whole fleet, not of ${tenant} alone.`
    : `The button halts the whole fleet, not ${tenant} alone.`
}

function leverOf(value: unknown): Lever | null {
  const type = field(value, 'type')
  return typeof type === 'string' ? leverNamed(type) : null
}

/** The file's own spelling of a type, which its incident has then; else what differs in case and punctuation alone. */
function mappedType(named: string, { types }: AlarmTypes) {
  const plain = (text: string) => text.toLowerCase().replace(/[^\p{L}\p{N}]/gu, '')
  const all = [...types]
  return (
    all.find(([type]) => type === asWord(named)) ??
    // The file takes ASCII alone: whoever mapped a `störung` wrote `st_rung`.
    all.find(([type]) => type === inAscii(named).slice(0, longestType)) ??
    all.find(([type]) => plain(type) === plain(named))
  )
}

/** Of a lever's alarm, where it has one that is understood. */
function levelOf(value: unknown): Priority | null {
  const said = alarm.shape.level.safeParse(field(value, 'level'))
  return said.success ? priorities[said.data] : null
}

function descriptionOf(value: unknown): string {
  const description = field(value, 'description')
  return typeof description === 'string' ? words(description, longest) : ''
}

/** What stands for a description that is missing: a digest tells nobody what happened. Empty where the word has none. */
function foreignType(value: unknown): string {
  const type = field(value, 'type')
  return typeof type === 'string' && foreign.test(type) ? words(type, longest) : ''
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
