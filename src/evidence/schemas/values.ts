import * as z from 'zod'

/** What values look like in the files of a pack. No number has a fraction: decimals are text, so that every language hashes the same. */

export const day = z
  .string()
  .regex(/^\d{4}-\d\d-\d\d$/)
  .describe('a day, UTC')
export const instant = z
  .string()
  .regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
  .describe('a moment, UTC, with microseconds')
export const decimal = z
  .string()
  .regex(/^-?\d+(\.\d+)?$/)
  .describe('a number in decimal')
export const whole = z
  .string()
  .regex(/^-?\d+$/)
  .describe('a whole number, which may be larger than 2^53')
export const count = z.int().min(0)
export const digest = z
  .string()
  .regex(/^[0-9a-f]{64}$/)
  .describe('sha256 in lower-case hex')
export const verdict = z.enum(['green', 'red', 'unknown'])
export const tenant = z.string().nullable().describe('key of a tenant; null: the whole fleet')
export const window = z.strictObject({ from: instant, until: instant })
