import type { Contract } from '../drivers/contract.ts'
import { parseSeconds } from '../duration.ts'
import type { Facts, Measured } from './facts.ts'
import { health, type Health } from './health.ts'
import type { Limits } from './slo.ts'

export type State = 'green' | 'red' | 'unknown'
export type Consequence = Contract['posture_act']['args']['action']
export type Comparison = 'at least' | 'at most' | 'below'

export type Check = {
  readonly name: string
  readonly group: 'flags' | 'budgets' | 'service' | 'watch' | 'burn' | 'health'
  /** A decimal; null: nothing was observed. */
  readonly observed: string | null
  readonly unit: string
  readonly comparison: Comparison
  readonly limit: string
  readonly samples: number
  readonly window: { readonly from: string; readonly to: string } | 'now'
  readonly source: string
  readonly state: State
  readonly why: string | null
  /** False: it is shown, and when it is unknown the verdict doesn't care. */
  readonly counts: boolean
  readonly consequences: readonly Consequence[]
}

/** What lies behind the numbers. Three honest answers that must not look alike, and the usual one. */
export type Ground = {
  readonly state: 'measured' | 'idle' | 'young' | 'unwatched'
  readonly why: string
}

export type Judgement = {
  readonly verdict: State
  readonly ground: Ground
  /** Null where only tenants are looked at: integrity, backups and schema are the fleet's. */
  readonly health: Health | null
  readonly checks: readonly Check[]
}

/** What the facts say against the limits. Pure: the same facts and limits give the same judgement for ever. */
export function judge(measured: Measured, slo: Limits): Judgement {
  const { facts } = measured
  const ground = groundOf(facts, slo)
  const score = facts.fleet ? health(measured, slo.checks.drift_score.fresh) : null
  const checks = [
    ...flagChecks(facts),
    ...budgetChecks(facts, slo),
    ...serviceChecks(facts, slo, ground),
    ...watchChecks(measured, slo, ground),
    ...burnChecks(facts, slo),
    ...(score === null ? [] : [healthCheck(score, slo)]),
  ]
  return { verdict: verdictOf(checks), ground, health: score, checks }
}

export function verdictOf(checks: readonly Pick<Check, 'state' | 'counts'>[]): State {
  if (checks.some(({ state }) => state === 'red')) return 'red'
  // Nothing judged isn't green either.
  if (checks.length === 0 || checks.some(({ state, counts }) => state === 'unknown' && counts)) return 'unknown'
  return 'green'
}

export function groundOf(facts: Facts, slo: Limits): Ground {
  const { installed_at, from, uptime, tasks } = facts
  if (installed_at === null) return { state: 'young', why: 'this database was never initialised' }
  if (installed_at > from) {
    return { state: 'young', why: `it was installed at ${minute(installed_at)}, within the window` }
  }
  const recorded = uptime.up + uptime.down
  if (!covered(recorded, uptime.minutes, slo.checks.uptime_percent.covered)) {
    return { state: 'unwatched', why: `somebody probed in ${recorded} of ${uptime.minutes} minutes` }
  }
  if (tasks.samples === '0') {
    return { state: 'idle', why: `nothing ended in the window, and ${uptime.up} of ${recorded} probed minutes were up` }
  }
  return { state: 'measured', why: `${tasks.samples} tasks, ${recorded} of ${uptime.minutes} minutes probed` }
}

// ---- flags and budgets

function flagChecks({ flags }: Facts): readonly Check[] {
  const what = {
    name: 'required_flags',
    group: 'flags',
    unit: 'findings',
    comparison: 'at most',
    limit: '0',
    window: 'now',
    source: 'flags of the environment and of every tenant in the scope',
    counts: true,
    consequences: [],
  } as const
  if (flags === null || flags.required === 0) {
    const why = flags === null ? 'this role may not read flags' : 'no flag is required: the catalogue is not loaded'
    return [{ ...what, observed: null, samples: 0, state: 'unknown', why }]
  }
  const { required, findings } = flags
  const [first] = findings
  const more = findings.length > 1 ? `, and ${findings.length - 1} more` : ''
  return [
    {
      ...what,
      observed: String(findings.length),
      samples: required,
      state: first ? 'red' : 'green',
      why: first
        ? `${first.key} of ${first.scope} is ${JSON.stringify(first.observed)} and must be ${first.expected}${more}`
        : null,
    },
  ]
}

function budgetChecks({ budgets, concurrency }: Facts, slo: Limits): readonly Check[] {
  const limits = slo.budgets
  const budget = (name: string, observed: string | null, limit: number, unit: string, source: string): Check =>
    number({ name, group: 'budgets', unit, source, window: 'now' }, observed, 'at most', limit, {
      samples: observed === null ? 0 : 1,
    })
  return [
    ...(concurrency === null
      ? []
      : [
          budget('agents_at_once', String(concurrency.slots), limits.agents_at_once, 'slots', 'leases of live workers'),
          budget(
            'agents_at_once_budget',
            String(concurrency.limit),
            limits.agents_at_once,
            'slots',
            'flag budget.agents.maxConcurrent',
          ),
        ]),
    budget('replay_items', budgets.replay_items, limits.replay_items, 'items', 'flag budget.replay.batchItems'),
    budget('replay_bytes', budgets.replay_bytes, limits.replay_bytes, 'bytes', 'flag budget.replay.batchBytes'),
    budget(
      'replay_stop_percent',
      budgets.replay_stop_percent,
      limits.replay_stop_percent,
      'percent',
      'flag budget.replay.stopAtFailurePercent',
    ),
    budget(
      'replays_per_five_minutes',
      budgets.replays_per_five_minutes,
      limits.replays_per_five_minutes,
      'replays',
      'flag budget.replay.perFiveMinutes',
    ),
  ]
}

// ---- service levels

function serviceChecks(facts: Facts, slo: Limits, ground: Ground): readonly Check[] {
  const { tasks, outbox, replays, uptime } = facts
  const { checks } = slo
  const span = { from: facts.from, to: facts.to }
  const taskSpan = { from: tasks.from, to: tasks.to }
  const ended = BigInt(tasks.samples)
  const none = nothingEnded(ground)
  return [
    uptimeCheck(uptime, span, checks.uptime_percent, ground),
    ratio(
      { name: 'task_success_percent', group: 'service', source: 'runs that ended tasks', window: taskSpan },
      BigInt(tasks.completed),
      ended,
      'at least',
      checks.task_success_percent.at_least,
      { ...checks.task_success_percent, none },
    ),
    latencyCheck(facts, checks.p95_latency_ms, none),
    lag('outbox_lag_p95_ms', outbox.p95_ms, checks.outbox_lag_p95_ms),
    lag('outbox_lag_average_ms', outbox.avg_ms, checks.outbox_lag_average_ms),
    ratio(
      { name: 'quarantine_percent', group: 'service', source: 'dead letters of ended tasks', window: taskSpan },
      BigInt(tasks.quarantined),
      ended,
      'below',
      checks.quarantine_percent.below,
      { ...checks.quarantine_percent, none },
    ),
    ratio(
      { name: 'replay_failure_percent', group: 'service', source: 'replay runs', window: span },
      BigInt(replays.failed),
      BigInt(replays.tried),
      'below',
      checks.replay_failure_percent.below,
      { ...checks.replay_failure_percent, none: 'nothing was replayed' },
    ),
    number(
      {
        name: 'replays_per_tenant_and_day',
        group: 'service',
        unit: 'replays',
        source: 'replay runs, the busiest tenant and day',
        window: span,
      },
      String(replays.most_in_a_day),
      'below',
      checks.replays_per_tenant_and_day.below,
      // Each is on record, so none is a count and no gap.
      { ...checks.replays_per_tenant_and_day, samples: Math.max(1, Number(replays.runs)) },
    ),
    costCheck(facts, checks.cost_per_1000_tasks, none),
  ]

  function lag(name: string, observed: string | null, limit: Limits['checks']['outbox_lag_p95_ms']): Check {
    return number(
      { name, group: 'service', unit: 'ms', source: 'outbox deliveries, waiting ones with their age', window: span },
      observed,
      'at most',
      limit.at_most,
      { ...limit, samples: Number(outbox.samples), none: 'nothing was delivered and nothing waits' },
    )
  }
}

function uptimeCheck(
  uptime: Facts['uptime'],
  window: Check['window'],
  limit: Limits['checks']['uptime_percent'],
  ground: Ground,
): Check {
  const { up, down, minutes, unknown } = uptime
  const recorded = up + down
  const check = ratio(
    { name: 'uptime_percent', group: 'service', source: 'minutes of recorded probes', window },
    BigInt(up),
    BigInt(recorded),
    'at least',
    limit.at_least,
    { ...limit, none: ground.state === 'young' ? ground.why : 'nobody probed in the window' },
  )
  // Minutes that nobody probed are neither up nor down: with too many of them there is no answer.
  if (check.state !== 'green' || covered(recorded, minutes, limit.covered)) {
    return check.state === 'red' ? { ...check, why: `${down} of ${recorded} probed minutes were down` } : check
  }
  const because = ground.state === 'young' ? `: ${ground.why}` : ''
  return { ...check, state: 'unknown', why: `nobody probed in ${unknown} of ${minutes} minutes${because}` }
}

/** The percentile lies somewhere in a bucket; where the limit lies in the same one, it is not known on which side. */
function latencyCheck({ tasks }: Facts, limit: Limits['checks']['p95_latency_ms'], none: string): Check {
  const check = number(
    {
      name: 'p95_latency_ms',
      group: 'service',
      unit: 'ms',
      source: `attempts in buckets; at most ${tasks.error_percent} % too high`,
      window: { from: tasks.from, to: tasks.to },
    },
    tasks.p95_ms,
    'at most',
    limit.at_most,
    { ...limit, samples: Number(tasks.timed), none },
  )
  if (check.state !== 'red' || Number(tasks.p95_above_ms ?? 0) >= limit.at_most) return check
  return {
    ...check,
    state: 'unknown',
    why: `it lies between ${tasks.p95_above_ms ?? '0'} and ${tasks.p95_ms ?? ''} ms, and so does the limit`,
  }
}

function costCheck({ tasks }: Facts, limit: Limits['checks']['cost_per_1000_tasks'], none: string): Check {
  const samples = BigInt(tasks.samples)
  const spent = millionths(tasks.cost) * 1000n
  const state = samples === 0n ? 'unknown' : spent < millionths(limit.below) * samples ? 'green' : 'red'
  return {
    name: 'cost_per_1000_tasks',
    group: 'service',
    // Rounded up: five dollars and a bit are not five.
    observed: samples === 0n ? null : decimal((spent + samples - 1n) / samples),
    unit: 'dollars',
    comparison: 'below',
    limit: String(limit.below),
    samples: Number(samples),
    window: { from: tasks.from, to: tasks.to },
    source: 'what runs spent, over ended tasks',
    state,
    why: samples === 0n ? none : null,
    counts: limit.without_samples === 'unknown',
    consequences: limit.consequences,
  }
}

// ---- to be watched

function watchChecks(
  { facts, pendingMigrations, notSealed = null }: Measured,
  slo: Limits,
  ground: Ground,
): readonly Check[] {
  const { incidents, drift, backup, tasks, unsealed_seconds, now } = facts
  const { checks } = slo
  const one = (observed: unknown) => ({ samples: observed === null ? 0 : 1 })
  const common: readonly Check[] = [
    number(
      { name: 'open_p1_incidents', group: 'watch', unit: 'incidents', source: 'open incidents', window: 'now' },
      String(incidents.p1),
      'at most',
      checks.open_p1_incidents.at_most,
      { ...checks.open_p1_incidents, samples: 1 },
    ),
    ratio(
      {
        name: 'trace_coverage_percent',
        group: 'watch',
        source: 'attempts with a trace id',
        window: { from: tasks.from, to: tasks.to },
      },
      BigInt(tasks.traced),
      BigInt(tasks.traceable),
      'at least',
      checks.trace_coverage_percent.at_least,
      { ...checks.trace_coverage_percent, none: nothingEnded(ground) },
    ),
  ]
  if (!facts.fleet) return common
  const driftAge = drift === null ? null : ageSeconds(drift.at, now)
  const stale = driftAge !== null && driftAge > checks.drift_score.fresh
  const score = drift === null || stale ? null : drift.score
  const backupHours = backup === null ? null : (ageSeconds(backup.at, now) / 3600).toFixed(2)
  const pending = pendingMigrations === null ? null : String(pendingMigrations)
  return [
    ...common,
    number(
      { name: 'drift_score', group: 'watch', unit: 'of 100', source: 'the newest scan of invariants', window: 'now' },
      score,
      'at least',
      checks.drift_score.at_least,
      {
        ...checks.drift_score,
        ...one(score),
        none: stale ? `the newest scan is of ${minute(drift?.at ?? '')}` : 'nobody has scanned the invariants yet',
      },
    ),
    number(
      { name: 'backup_age_hours', group: 'watch', unit: 'hours', source: 'the newest valid backup', window: 'now' },
      backupHours,
      'below',
      checks.backup_age_hours.below,
      { ...checks.backup_age_hours, ...one(backupHours), none: 'no backup is on record' },
    ),
    withReason(
      number(
        {
          name: 'unsealed_ledger_seconds',
          group: 'watch',
          unit: 'seconds',
          source: 'the oldest ledger row without a place in the chain',
          window: 'now',
        },
        unsealed_seconds,
        'at most',
        checks.unsealed_ledger_seconds.at_most,
        { ...checks.unsealed_ledger_seconds, ...one(unsealed_seconds), none: 'nothing here seals the ledger' },
      ),
      notSealed === null ? null : `no worker has sealed these rows, and this look could not: ${notSealed}`,
    ),
    number(
      {
        name: 'pending_migrations',
        group: 'watch',
        unit: 'files',
        source: 'files of this release against those the database ran',
        window: 'now',
      },
      pending,
      'at most',
      checks.pending_migrations.at_most,
      { ...checks.pending_migrations, ...one(pending), none: 'the files of this release were not compared' },
    ),
  ]
}

function healthCheck(score: Health, slo: Limits): Check {
  const limit = slo.checks.health_score
  const state = Number(score.high) < limit.at_least ? 'red' : Number(score.low) >= limit.at_least ? 'green' : 'unknown'
  return {
    name: 'health_score',
    group: 'health',
    observed: score.low,
    unit: 'of 100',
    comparison: 'at least',
    limit: String(limit.at_least),
    samples: score.components.filter(({ known }) => known).length,
    window: 'now',
    source: 'its components, the unknown ones at their worst',
    state,
    why: state === 'unknown' ? `it lies between ${score.low} and ${score.high}` : null,
    counts: limit.without_samples === 'unknown',
    consequences: limit.consequences,
  }
}

// ---- error budgets

function burnChecks(facts: Facts, { burn, checks }: Limits): readonly Check[] {
  const spanOf = (seconds: number) => facts.burn.find((span) => span.seconds === seconds)
  return (['task_success', 'uptime'] as const).flatMap((of) => {
    const target = of === 'uptime' ? checks.uptime_percent.at_least : checks.task_success_percent.at_least
    return (['fast', 'medium', 'slow'] as const).map((pace): Check => {
      const { factor, long, short } = burn[pace]
      const spans = [long, short].map((name) => {
        const span = spanOf(parseSeconds(name))
        const bad = of === 'uptime' ? (span?.uptime.down ?? 0) : Number(span?.failed ?? 0)
        const all = of === 'uptime' ? bad + (span?.uptime.up ?? 0) : bad + Number(span?.completed ?? 0)
        return { name, all, rate: burnRate(bad, all, target), burns: burnsFaster(bad, all, target, factor) }
      })
      // Both have to burn: one that doesn't is an answer, whatever the other would say.
      const state = spans.every(({ burns }) => burns === true)
        ? 'red'
        : spans.some(({ burns }) => burns === false)
          ? 'green'
          : 'unknown'
      const rates = spans.flatMap(({ rate }) => (rate === null ? [] : [rate]))
      return {
        name: `${of}_burn_${pace}`,
        group: 'burn',
        observed: state === 'unknown' || rates.length === 0 ? null : spell(Math.min(...rates)),
        unit: `times, over ${long} and ${short}`,
        comparison: 'at most',
        limit: String(factor),
        samples: state === 'unknown' ? 0 : spans.reduce((sum, { all, burns }) => sum + (burns === null ? 0 : all), 0),
        window: { from: earlier(facts.to, parseSeconds(long)), to: facts.to },
        source: of === 'uptime' ? 'minutes of recorded probes' : 'runs that ended tasks',
        state,
        why:
          state === 'unknown'
            ? 'nothing to measure in one of its spans or both'
            : spans.map(({ name, rate }) => `${rate === null ? 'unknown' : `${spell(rate)}×`} over ${name}`).join(', '),
        // The service level itself says when there is nothing to measure.
        counts: false,
        consequences: [],
      }
    })
  })
}

/** How many times faster than the budget allows; null without samples. */
function burnRate(bad: number, all: number, target: number): number | null {
  if (all === 0) return null
  if (bad === 0) return 0
  return target === 100 ? Infinity : bad / all / ((100 - target) / 100)
}

function burnsFaster(bad: number, all: number, target: number, factor: number): boolean | null {
  if (all === 0) return null
  const budget = 100_000_000n - millionths(target)
  return BigInt(bad) * 100n * 1_000_000n * 1_000_000n > millionths(factor) * budget * BigInt(all)
}

function spell(rate: number): string {
  return Number.isFinite(rate) ? rate.toFixed(2) : 'infinite'
}

// ---- comparing

type Named = Pick<Check, 'name' | 'group' | 'source' | 'window'>
type Options = {
  readonly samples?: number
  readonly without_samples?: 'unknown' | 'aside'
  readonly consequences?: readonly Consequence[]
  /** Why there is nothing, when there is nothing. */
  readonly none?: string
}

/** A share in percent, compared by its two counts: a rounded percentage would be green at 97.99999. */
export function ratio(
  named: Named,
  part: bigint,
  whole: bigint,
  comparison: Comparison,
  limit: number,
  { without_samples = 'unknown', consequences = [], none = 'nothing was measured' }: Options,
): Check {
  const share = part * 100n * 1_000_000n
  const bound = millionths(limit) * whole
  const known = whole > 0n
  return {
    ...named,
    unit: 'percent',
    comparison,
    limit: String(limit),
    observed: known ? percentOf(part, whole, comparison) : null,
    samples: Number(whole),
    state: known ? (holds(share, comparison, bound) ? 'green' : 'red') : 'unknown',
    why: known ? null : none,
    counts: without_samples === 'unknown',
    consequences,
  }
}

/** A decimal against its limit. */
export function number(
  named: Named & Pick<Check, 'unit'>,
  observed: string | null,
  comparison: Comparison,
  limit: number,
  { samples = 0, without_samples = 'unknown', consequences = [], none = 'nothing was measured' }: Options,
): Check {
  const known = observed !== null && samples > 0
  return {
    ...named,
    comparison,
    limit: String(limit),
    observed: known ? observed : null,
    samples: known ? samples : 0,
    state: known ? (holds(millionths(observed), comparison, millionths(limit)) ? 'green' : 'red') : 'unknown',
    why: known ? null : none,
    counts: without_samples === 'unknown',
    consequences,
  }
}

/** Why a check is red, where the number alone doesn't say it. */
function withReason(check: Check, why: string | null): Check {
  return check.state === 'red' && check.why === null ? { ...check, why } : check
}

function holds(observed: bigint, comparison: Comparison, limit: bigint): boolean {
  if (comparison === 'at least') return observed >= limit
  return comparison === 'at most' ? observed <= limit : observed < limit
}

/** Cut towards the bad side, so that what is shown never looks better than what was compared. */
function percentOf(part: bigint, whole: bigint, comparison: Comparison): string {
  const scaled = part * 100n * 1_000_000n
  return decimal(comparison === 'at least' ? scaled / whole : (scaled + whole - 1n) / whole)
}

/** Exact up to six decimals; what is finer is cut. */
export function millionths(value: string | number): bigint {
  const text = typeof value === 'number' ? value.toFixed(6) : value
  const [units = '0', decimals = ''] = text.replace('-', '').split('.')
  const size = BigInt(units) * 1_000_000n + BigInt(decimals.slice(0, 6).padEnd(6, '0'))
  return text.startsWith('-') ? -size : size
}

function decimal(value: bigint): string {
  const decimals = String(value % 1_000_000n)
    .padStart(6, '0')
    .replace(/0+$/, '')
  return `${value / 1_000_000n}${decimals === '' ? '' : `.${decimals}`}`
}

function covered(recorded: number, minutes: number, percent: number): boolean {
  return recorded > 0 && BigInt(recorded) * 100_000_000n >= millionths(percent) * BigInt(minutes)
}

function nothingEnded(ground: Ground): string {
  return ground.state === 'measured'
    ? 'nothing was measured'
    : `nothing ended in the window: ${ground.state}; ${ground.why}`
}

export function ageSeconds(at: string, now: string): number {
  return Math.max(0, (Date.parse(now) - Date.parse(at)) / 1000)
}

function earlier(at: string, seconds: number): string {
  return new Date(Date.parse(at) - seconds * 1000).toISOString().replace('Z', '000Z')
}

function minute(at: string): string {
  return `${at.slice(0, 16).replace('T', ' ')} UTC`
}
