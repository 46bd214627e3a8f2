import * as z from 'zod'
import { ownChecks, priorities } from '../drivers/contract/invariants.ts'
import { parseSeconds } from '../duration.ts'

/** The form of policies/invariants/<INVARIANT>.yaml. */

export const invariantNameRule = /^[A-Z][A-Z0-9_]{2,44}$/
const closedSchemas = /^(tms|tms_invariants|information_schema|pg_[^.]*)\./

const nameMessage = 'takes capital letters, digits and _, 3 to 45 of them: NO_NEGATIVE_STOCK'
const line = z.string({ error: 'takes text' }).trim().min(1, 'takes text').max(200, 'takes at most 200 characters')

const tableMessage = 'takes a table with its schema, in small letters: retail.stock'
const table = z
  .string({ error: tableMessage })
  .regex(/^[a-z_][a-z0-9_]{0,62}\.[a-z_][a-z0-9_]{0,62}$/, tableMessage)
  .refine(
    (name) => !closedSchemas.test(name),
    "is a table of the system or of tms itself; for tms's own there is `check`",
  )

const functionMessage = 'takes a function with its schema, in small letters: retail.total_of'
const sqlFunction = z
  .string({ error: functionMessage })
  .regex(/^[a-z_][a-z0-9_]{0,62}\.[a-z_][a-z0-9_]{0,62}$/, functionMessage)
  .refine((name) => !closedSchemas.test(name), 'is a function of the system or of tms itself: name one of your own')

const statement = z
  .string({ error: 'takes SQL' })
  .trim()
  .min(1, 'takes SQL')
  .max(20_000, 'takes at most 20000 characters')

function list<T extends z.ZodType>(item: T) {
  return z.array(item, { error: 'takes a list' }).max(50, 'takes at most 50')
}

function whole(least: number, most: number) {
  const message = `takes a whole number from ${least} to ${most}`
  return z.int({ error: message }).min(least, message).max(most, message)
}

/** In seconds. A bare number is refused: half of those who read it would take it for milliseconds. */
function duration(least: string, most: string) {
  const message = `takes a duration from ${least} to ${most}`
  return z
    .string({ error: message })
    .regex(/^\d{1,9}[smhd]$/, message)
    .transform((text) => parseSeconds(text))
    .refine((seconds) => seconds >= parseSeconds(least) && seconds <= parseSeconds(most), message)
}

function oneOf<const T extends readonly [string, ...string[]]>(values: T) {
  return z.enum(values, { error: `takes ${values.slice(0, -1).join(', ')} or ${values.at(-1) ?? ''}` })
}

export const invariantForm = z.strictObject(
  {
    invariant: z.string({ error: nameMessage }).regex(invariantNameRule, nameMessage),
    title: line,
    owner: line,
    priority: oneOf(priorities),
    every: duration('1m', '24h').prefault('5m'),
    // A check's transaction keeps the ledger's youngest rows from being sealed: well below the minute that is a finding.
    timeout: duration('1s', '30s').prefault('5s'),
    escalate: oneOf(['at_once', 'later']).default('later'),
    /** One of tms's own. */
    check: oneOf(ownChecks).optional(),
    query: statement.optional(),
    grants: z
      .strictObject(
        { read: list(table).min(1, 'takes at least one table'), functions: list(sqlFunction).default([]) },
        { error: 'takes read and functions' },
      )
      .optional(),
    show: list(
      z
        .string({ error: 'takes the name of a column of the query' })
        .regex(/^[A-Za-z_][\w$]{0,59}$/, 'takes the name of a column of the query'),
    ).default([]),
    correct: z
      .strictObject(
        {
          statement,
          write: list(table).min(1, 'takes at least one table'),
          rows_per_scan: whole(1, 100_000),
          rows_per_violation: whole(1, 1000),
        },
        { error: 'takes statement, write, rows_per_scan and rows_per_violation' },
      )
      .optional(),
  },
  { error: 'takes invariant, title, owner, priority, and query with grants, or check' },
)

export type InvariantForm = z.output<typeof invariantForm>
