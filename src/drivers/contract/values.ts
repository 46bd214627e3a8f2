import * as z from 'zod'

/** What values look like on the wire, and the shape of an entry of the contract. */

/** UTC with six digits: 2026-11-20T09:30:00.123456Z. PGlite, pg and PostgREST disagree on everything richer. */
export const timestamp = z.string().regex(/^\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
/** int8 and numeric travel as text: JSON numbers lose digits above 2^53. */
export const wideInteger = z.string().regex(/^-?\d+$/)
export const decimal = z.string().regex(/^-?\d+(\.\d+)?$/)
export const uuid = z.guid()
/** Any JSON value: what a flag, a payload or a result may hold. */
export const json = z.json()

export const scope = { tenant: z.string().optional() }
export const write = { request_id: uuid }

export type Entry = {
  readonly operation: string | null
  readonly reads: false | 'replica' | 'primary'
  // Functions: a command asks for two or three of the schemas, and making all of them took it 10 ms.
  readonly args: () => z.ZodObject
  readonly result: () => z.ZodType
}
