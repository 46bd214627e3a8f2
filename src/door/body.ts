import * as z from 'zod'
import { depthOf } from '../depth.ts'
import type { json } from '../drivers/contract/values.ts'
import { errorClasses } from '../drivers/contract/fleet.ts'
import { DoorRefusal } from './answers.ts'

/** Deeper ones overrun the stack of whoever walks them, here or in the database. */
const deepest = 64

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** The bytes as JSON. Only after the signature was found right. */
export function parseBody(bytes: Uint8Array): unknown {
  let text: string
  try {
    text = utf8.decode(bytes)
  } catch {
    throw invalid('not_json', 'It is not UTF-8.')
  }
  if (depthOf(text) > deepest) throw invalid('not_json', `It is nested deeper than ${deepest}.`)
  let content: unknown
  try {
    content = JSON.parse(text)
  } catch {
    throw invalid('not_json', 'It is not JSON.')
  }
  if (changesNumbers(text)) throw invalid('number', 'It has a number that would not be kept as it is.')
  // Only as an escape can these be there; JSON.stringify writes nothing else of them like this.
  if (text.includes('\\u') && unstorable.test(JSON.stringify(content))) {
    throw invalid('not_json', 'It has a zero character or half a surrogate pair.')
  }
  return content
}

/** JSON allows them and Postgres has no text for them: refused before the nonce is used. */
const unstorable = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/

/**
 * Whether parsing makes another number of one: of 1e400 nothing, of a long integer one with zeros at its end. Decimals are
 * as near as a double comes. The text was found to be JSON.
 */
function changesNumbers(text: string): boolean {
  const number = /-?(\d+)([.eE][\d.eE+-]+)?/y
  let quoted = false
  for (let at = 0; at < text.length; at += 1) {
    const char = text.charCodeAt(at)
    if (quoted) {
      if (char === 0x5c) at += 1
      else if (char === 0x22) quoted = false
    } else if (char === 0x22) quoted = true
    else if (char === 0x2d || (char >= 0x30 && char <= 0x39)) {
      number.lastIndex = at
      const [all = '', digits = '', rest] = number.exec(text) ?? []
      if (rest === undefined ? String(Number(digits)) !== digits : !Number.isFinite(Number(all))) return true
      at += all.length - 1
    }
  }
  return false
}

/** Says where it is wrong and what kind of wrong; never what stands there. */
export function readShape<T extends z.ZodType>(shape: T, content: unknown): z.output<T> {
  const read = shape.safeParse(content)
  if (read.success) return read.data
  const issue = read.error.issues[0]
  const place = (issue?.path ?? []).map(String).join('.').slice(0, 100)
  throw invalid('wrong_shape', `At ${place === '' ? 'the top' : place}: ${issue?.code ?? 'wrong'}.`)
}

function invalid(reason: string, detail: string): DoorRefusal {
  return new DoorRefusal('INPUT_INVALID', reason, detail)
}

/** True of whatever JSON.parse gave; walking it again to see that would cost more than all the rest. */
const parsedJson = z.custom<z.infer<typeof json>>(() => true)

const tenant = z.string().min(1).max(100)
const ids = z
  .array(z.string().regex(/^[1-9]\d{0,17}$/))
  .min(1)
  .max(1000)

export const tasksBody = z.strictObject({
  tenant,
  tasks: z
    .array(
      z.strictObject({
        function: z.string().min(1).max(120),
        payload: parsedJson.optional(),
        key: z.string().min(1).max(200).optional(),
        delay_ms: z.int().min(0).optional(),
        priority: z.int().min(-1).max(1).optional(),
        traceparent: z.string().max(80).optional(),
      }),
    )
    .min(1)
    .max(1000),
})

/** What a webhook brings: anything. The function that gets it has a schema of its own. */
export const anyBody = parsedJson

export function wantsDryRun(content: unknown): boolean {
  return typeof content === 'object' && content !== null && Reflect.get(content, 'dry_run') === true
}

export const planBody = z.strictObject({
  tenant,
  dry_run: z.literal(true),
  ids: ids.optional(),
  class: z.enum(errorClasses).optional(),
  limit: z.int().min(1).max(1000).optional(),
})

/** Executes the plan that a dry run gave, and nothing else. */
export const replayBody = z.strictObject({
  tenant,
  dry_run: z.literal(false).optional(),
  ids,
  plan: z.string().regex(/^[0-9a-f]{12}$/),
  why: z.string().trim().min(1).max(1000),
})
