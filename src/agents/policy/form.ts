import * as z from 'zod'
import { parseSeconds } from '../../duration.ts'

/** The form of policies/agents/<agent>.yaml. What isn't written is not allowed; limits have the defaults that stand here. */

export const agentNameRule = /^[a-z][a-z0-9_-]{0,62}$/
export const functionNameRule = /^(?=.{1,120}$)[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$/
/** A name, or all below it: `rates.*`. No `*` alone: who may do everything shall have it listed. */
export const topicPatternRule = /^(?=.{1,120}$)[a-z][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)*(\.\*)?$/
const functionPatternRule = /^(?=.{1,120}$)[a-z][a-z0-9_]*((\.[a-z][a-z0-9_]*)+|(\.[a-z][a-z0-9_]*)*\.\*)$/
const sqlFunctionRule = /^[a-z_][a-z0-9_]{0,62}\.[a-z_][a-z0-9_]{0,62}$/
const closedSchemas = /^(tms|information_schema|pg_[^.]*)\./

const functionName = 'takes the name of a function: area.verb in small letters, like rates.price_one'
const line = z.string({ error: 'takes text' }).trim().min(1, 'takes text').max(500, 'takes at most 500 characters')

export const topicPattern = z
  .string({ error: 'takes a topic, like rates.priced, or rates.* for all below' })
  .regex(topicPatternRule, 'takes a topic, like rates.priced, or rates.* for all below; * alone is not allowed')

const functionPattern = z
  .string({ error: 'takes a function, like rates.price_one, or rates.* for all below' })
  .regex(
    functionPatternRule,
    'takes a function, like rates.price_one, or rates.* for all below; * alone is not allowed',
  )

const sqlFunction = z
  .string({ error: 'takes a SQL function: schema.function' })
  .regex(sqlFunctionRule, 'takes a SQL function: schema.function, in small letters, no pattern')
  .refine((name) => !closedSchemas.test(name), 'is a function of the system or of tms itself: name one of your own')

const entry = z.preprocess(
  (value) => (typeof value === 'string' ? { name: value } : value),
  z.strictObject(
    {
      name: z.string({ error: functionName }).regex(functionNameRule, functionName),
      approval: z.boolean({ error: 'takes true or false' }).default(false),
    },
    { error: 'takes a function: its name, or { name: …, approval: true }' },
  ),
)

function list<T extends z.ZodType>(item: T) {
  return z.array(item, { error: 'takes a list' })
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

/** A number in YAML is a binary fraction: 0.1 isn't ten cents. So money is text. */
const money = z
  .string({ error: "takes an amount in quotes: '0.50'" })
  .regex(/^\d{1,9}(\.\d{1,6})?$/, "takes an amount in quotes, with at most six decimals: '0.50'")

const percentMessage = 'takes a number from 0 to 50 with at most two decimals; a breaker above that is none'
const percent = z
  .number({ error: percentMessage })
  .min(0, percentMessage)
  .max(50, percentMessage)
  .refine((number) => Number(number.toFixed(2)) === number, percentMessage)

const mostTokens = 1_000_000_000_000
const mostCalls = 1_000_000_000

function group<T extends z.core.$ZodLooseShape>(shape: T, holds: string) {
  return z.strictObject(shape, { error: `takes ${holds}` })
}

export const policyForm = group(
  {
    agent: z
      .string({ error: 'takes the name of the agent' })
      .regex(agentNameRule, 'takes small letters, digits, _ and -'),
    description: line,
    owner: line,
    functions: list(entry),
    limits: group(
      {
        timeout: duration('1s', '24h').prefault('30s'),
        attempts: whole(1, 100).default(5),
        concurrency: whole(1, 150).optional(),
        requests_per_minute: whole(1, 1_000_000).optional(),
        per_task: group(
          { tokens: whole(0, mostTokens).default(0), calls: whole(0, mostCalls).default(0), cost: money.default('0') },
          'tokens, calls and cost',
        ).prefault({}),
        per_tenant_per_day: group(
          {
            tokens: whole(1, mostTokens).optional(),
            calls: whole(1, mostCalls).optional(),
            cost: money.refine((amount) => /[1-9]/.test(amount), 'takes more than nothing').optional(),
          },
          'tokens, calls and cost',
        ).prefault({}),
      },
      'timeout, attempts, concurrency, requests_per_minute, per_task and per_tenant_per_day',
    ).prefault({}),
    backoff: group(
      { first: duration('1s', '24h').prefault('5s'), most: duration('1s', '7d').prefault('10m') },
      'first and most',
    ).prefault({}),
    breaker: group(
      {
        errors_percent: percent.default(5),
        samples: whole(1, 1000).default(20),
        pause: duration('1s', '15m').prefault('60s'),
      },
      'errors_percent, samples and pause',
    ).prefault({}),
    may: group(
      {
        publish: list(topicPattern).default([]),
        enqueue: list(functionPattern).default([]),
        apply: list(sqlFunction).default([]),
      },
      'publish, enqueue and apply',
    ).prefault({}),
  },
  'agent, description, owner and functions at least',
)

export type PolicyForm = z.output<typeof policyForm>

export const spendingUnits = ['tokens', 'calls', 'cost'] as const

/** Exact: in millionths. */
export function amount(value: string | number): bigint {
  const [units = '0', decimals = ''] = String(value).split('.')
  return BigInt(units) * 1_000_000n + BigInt(decimals.padEnd(6, '0'))
}
