import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'
import { parseSeconds } from '../duration.ts'
import { TmsError } from '../errors.ts'
import {
  parsePolicyFile,
  problemLine,
  readPolicyFile,
  type FileProblem,
  type ParsedPolicyFile,
} from '../policy-file.ts'

/** policies/slo.yaml: the limits, and what follows when they are passed. */

const limitRule = 'takes a number that is not negative, with at most six decimals'
const limit = z
  .number({ error: limitRule })
  .min(0, limitRule)
  .max(1e12, limitRule)
  .refine((number) => Number(number.toFixed(6)) === number, limitRule)
const percentRule = 'takes a percentage from 0 to 100 with at most six decimals'
const percent = limit.max(100, percentRule)
const wholeRule = 'takes a whole number that is not negative'
const whole = z.int({ error: wholeRule }).min(0, wholeRule).max(1_000_000_000, wholeRule)
const flagRule = 'takes true or false'

function duration(least: string, most: string) {
  const message = `takes a duration from ${least} to ${most}`
  return z
    .string({ error: message })
    .regex(/^\d{1,9}[smhd]$/, message)
    .transform((text) => parseSeconds(text))
    .refine((seconds) => seconds >= parseSeconds(least) && seconds <= parseSeconds(most), message)
}

const withoutSamples = z.enum(['unknown', 'aside'], { error: 'takes unknown or aside' }).default('unknown')

function following<const T extends readonly [string, ...string[]]>(...names: T) {
  return z
    .array(z.enum(names, { error: `takes one of ${names.join(', ')}` }), { error: 'takes a list of consequences' })
    .default([])
}

const common = { without_samples: withoutSamples, consequences: following('throttle', 'freeze', 'pause_replay') }

function check<S extends z.core.$ZodLooseShape>(shape: S) {
  const keys = Object.keys(shape)[0] ?? 'at_most'
  return z.strictObject({ ...common, ...shape }, { error: `takes its limit: { ${keys}: … }` })
}

const noSafeMode = {
  ...common,
  consequences: following('throttle', 'freeze', 'pause_replay', 'quarantine'),
}

const consequence = { report_only: z.boolean({ error: flagRule }), samples: whole }

const burn = z.strictObject(
  { factor: limit.min(0.000001, limitRule), long: z.enum(['1h', '6h', '3d']), short: z.enum(['5m', '30m', '6h']) },
  { error: 'takes factor, long (1h, 6h or 3d) and short (5m, 30m or 6h)' },
)

const form = z.strictObject(
  {
    window: duration('15m', '31d'),
    checks: z.strictObject(
      {
        uptime_percent: check({ at_least: percent, covered: percent }),
        task_success_percent: z.strictObject({ ...noSafeMode, at_least: percent }, { error: 'takes { at_least: … }' }),
        p95_latency_ms: check({ at_most: limit }),
        outbox_lag_p95_ms: check({ at_most: limit }),
        outbox_lag_average_ms: check({ at_most: limit }),
        quarantine_percent: check({ below: percent }),
        replay_failure_percent: check({ below: percent }),
        replays_per_tenant_and_day: check({ below: limit }),
        cost_per_1000_tasks: check({ below: limit }),
        open_p1_incidents: check({ at_most: limit }),
        drift_score: check({ at_least: percent, fresh: duration('1m', '31d') }),
        backup_age_hours: check({ below: limit }),
        trace_coverage_percent: check({ at_least: percent }),
        unsealed_ledger_seconds: check({ at_most: limit }),
        pending_migrations: check({ at_most: limit }),
        health_score: z.strictObject(
          { ...common, at_least: percent, consequences: following('throttle', 'freeze', 'safe_mode') },
          { error: 'takes { at_least: … }' },
        ),
      },
      { error: 'takes every check with its limit' },
    ),
    budgets: z.strictObject(
      {
        agents_at_once: limit,
        replay_items: limit,
        replay_bytes: limit,
        replay_stop_percent: percent,
        replays_per_five_minutes: limit,
      },
      { error: 'takes every budget with its limit' },
    ),
    burn: z.strictObject({ fast: burn, medium: burn, slow: burn }, { error: 'takes fast, medium and slow' }),
    consequences: z.strictObject(
      {
        throttle: z.strictObject({ ...consequence, percent: whole.min(1, wholeRule).max(99, wholeRule), least: whole }),
        freeze: z.strictObject(consequence),
        pause_replay: z.strictObject(consequence),
        quarantine: z.strictObject(consequence),
        safe_mode: z.strictObject(consequence),
      },
      { error: 'takes every consequence, with report_only and samples' },
    ),
  },
  { error: 'takes window, checks, budgets, burn and consequences' },
)

export type Limits = z.output<typeof form>
export type Slo = Limits & {
  readonly path: string
  /** Of the file's bytes: which promises a judgement was made by. */
  readonly sha256: string
}

/** The first folder's slo.yaml: the project's own, else the shipped one. A broken one judges nothing. */
export async function readSlo(policyFolders: readonly string[]): Promise<Slo> {
  for (const folder of policyFolders) {
    const path = join(folder, 'slo.yaml')
    const file = await readPolicyFile(path, form)
    if (file !== null) return sloOf(path, file, await readFile(path))
  }
  throw new TmsError({
    code: 'POLICY_INVALID',
    what: 'It is not said what this system must hold.',
    why: `There is no slo.yaml in ${policyFolders.join(' or ')}.`,
    next: ['npm install -g @transbot/tms'],
  })
}

export function parseSlo(path: string, text: string): Slo {
  return sloOf(path, parsePolicyFile(path, text, form), text)
}

function sloOf(path: string, file: ParsedPolicyFile<Limits>, bytes: string | Uint8Array): Slo {
  if ('problems' in file) throw invalid(file.problems)
  const { value, problemAt } = file
  const wrong = Object.entries(value.burn).flatMap(([name, { long, short }]) =>
    parseSeconds(short) < parseSeconds(long)
      ? []
      : [problemAt(['burn', name], 'takes a short span below the long one')],
  )
  if (wrong.length > 0) throw invalid(wrong)
  return { ...value, path, sha256: createHash('sha256').update(bytes).digest('hex') }
}

function invalid(problems: readonly FileProblem[]): TmsError {
  const [first] = problems
  const more =
    problems.length > 1 ? `; ${problems.length - 1} more: ${problems.slice(1).map(problemLine).join('; ')}` : ''
  return new TmsError({
    code: 'POLICY_INVALID',
    what: first ? problemLine(first) : 'slo.yaml is wrong',
    why: `It says what green is, so nothing was judged${more}`,
    next: first ? [`vi +${first.line} ${first.path}`] : [],
  })
}

/** `--window`: how far to look back. Undefined: as the file says. */
export function windowSeconds(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const seconds = parseSeconds(text)
  if (seconds >= 300 && seconds <= 31 * 86_400) return seconds
  throw new TmsError({
    code: 'USAGE',
    what: `"${text.slice(0, 20)}" is no window.`,
    why: 'It is between 5m and 31d long.',
    next: ['tms posture check --window 24h'],
  })
}
