import * as z from 'zod'
import { deepestArguments, depthOf } from '../../depth.ts'
import { isErrorCode, TmsError } from '../../errors.ts'
import type { ServiceAccount } from '../connection.ts'
import { serviceAccounts } from '../connection.ts'
import type { ContractFunction } from '../contract.ts'
import { isContractFunction } from '../contract.ts'
import type { Channel } from '../driver.ts'
import { channels } from '../driver.ts'

/**
 * What the owner's socket speaks: JSON, one object a line, and only these two requests. Every process of this user can
 * connect, so nothing here runs SQL or changes the session. `as` steps down to a service account, which may do less than
 * this user; nobody else can be chosen.
 */
export type Request =
  | {
      readonly id: number
      readonly call: ContractFunction
      readonly args: object
      readonly as?: ServiceAccount | undefined
      /** Milliseconds: this call alone, where that is sooner than for all. */
      readonly limit?: number | undefined
    }
  | { readonly id: number; readonly listen: Channel }

const id = z.int().min(0)
const requestSchema = z.union([
  z.strictObject({
    id,
    call: z.string(),
    args: z.record(z.string(), z.unknown()),
    as: z.enum(serviceAccounts).optional(),
    limit: z.int().min(1).optional(),
  }),
  z.strictObject({ id, listen: z.enum(channels) }),
])

export type Parsed = { readonly request: Request } | { readonly id: number | null; readonly problem: string }

export function parseRequest(line: string | null): Parsed {
  if (line === null) return { id: null, problem: 'The line is not UTF-8.' }
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return { id: null, problem: 'The line is not JSON.' }
  }
  const known = z.object({ id }).safeParse(value)
  const named = known.success ? known.data.id : null
  // The request itself is the level around its arguments.
  if (depthOf(line) > deepestArguments + 1) {
    return { id: named, problem: `It is nested deeper than ${deepestArguments} levels.` }
  }
  const parsed = requestSchema.safeParse(value)
  if (!parsed.success) return { id: named, problem: 'It is neither {id, call, args} nor {id, listen}.' }
  const request = parsed.data
  if ('listen' in request) return { request }
  const { call } = request
  if (!isContractFunction(call)) return { id: request.id, problem: 'The contract has no such function.' }
  return { request: { ...request, call } }
}

/** `answer` is already JSON text: the database made it, and it isn't parsed on the way through. */
export function answerLine(id: number, answer: string): string {
  return `{"id":${id},"answer":${answer}}\n`
}

export function errorLine(id: number | null, error: TmsError): string {
  const { code, message, why, next } = error
  return `${JSON.stringify({ id, error: { code, what: message, why, next } })}\n`
}

export function signalLine(channel: Channel): string {
  return `${JSON.stringify({ signal: channel })}\n`
}

const replySchema = z.union([
  z.object({ signal: z.enum(channels) }),
  z.object({
    id: id.nullable(),
    error: z.object({ code: z.string(), what: z.string(), why: z.string(), next: z.array(z.string()) }),
  }),
  z.object({ id, answer: z.unknown() }),
])

export type Reply =
  | { readonly signal: Channel }
  | { readonly id: number | null; readonly error: TmsError }
  | { readonly id: number; readonly answer: unknown }

export function parseReply(line: string): Reply {
  const reply = replySchema.parse(JSON.parse(line))
  if (!('error' in reply)) return reply
  const { code, ...rest } = reply.error
  // An owner of another version may know codes that this one doesn't.
  return { id: reply.id, error: new TmsError({ code: isErrorCode(code) ? code : 'DB_ERROR', ...rest }) }
}
