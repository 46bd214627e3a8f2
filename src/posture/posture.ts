import { randomUUID } from 'node:crypto'
import type { SqlFiles } from '../db/files.ts'
import { schemaStatus } from '../db/schema.ts'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import type { Problem } from '../errors.ts'
import { sealBeforeJudging } from '../ledger/ledger.ts'
import type { Facts } from './facts.ts'
import { judge, type Judgement, type State } from './judge.ts'
import type { Slo } from './slo.ts'

export type Posture = Judgement & {
  /** Which database, in words. */
  readonly target: string
  readonly scope: string
  readonly fleet: boolean
  /** When the facts were read, by the database's clock. */
  readonly as_of: string
  readonly window: { readonly from: string; readonly to: string }
  /** The limits it was judged by. */
  readonly slo: { readonly path: string; readonly sha256: string }
  readonly halted: boolean
  readonly safe_mode: boolean
  /** Of each agent, for whoever has to find the one to blame. */
  readonly agents: Facts['tasks']['agents']
}

export type PostureWanted = {
  readonly tenant?: string | undefined
  /** Length of the window up to now; the file's by default. */
  readonly windowSeconds?: number | undefined
  readonly slo: Slo
  /** What this release ships, to know of pending migrations; null: that stays unknown. */
  readonly sqlFiles: SqlFiles | null
}

/** Measures and judges. Changes nothing, but that what waits for the ledger's sealer is sealed first, where the caller may. */
export async function posture(driver: Driver, wanted: PostureWanted): Promise<Posture> {
  const { tenant, slo, sqlFiles } = wanted
  const seconds = wanted.windowSeconds ?? slo.window
  const notSealed = tenant === undefined ? await sealBeforeJudging(driver) : null
  const [facts, pendingMigrations] = await Promise.all([
    driver.call('posture_facts', { tenant, seconds }).then(granted),
    sqlFiles === null ? null : pending(driver, sqlFiles),
  ])
  return {
    target: driver.target.name,
    scope: facts.scope,
    fleet: facts.fleet,
    as_of: facts.now,
    window: { from: facts.from, to: facts.to },
    slo: { path: slo.path, sha256: slo.sha256 },
    halted: facts.fence.halted,
    safe_mode: facts.fence.safe_mode,
    agents: facts.tasks.agents,
    ...judge({ facts, pendingMigrations, notSealed }, slo),
  }
}

async function pending(driver: Driver, files: SqlFiles): Promise<number> {
  const status = await schemaStatus(driver, files)
  return status.files.filter(({ state }) => state === 'pending' || state === 'changed').length
}

export type Recorded = Contract['posture_record']['result']

/** Puts a judgement of the whole fleet on record. Whatever changed is announced through the outbox, once. */
export async function recordPosture(driver: Driver, { as_of, verdict, health, checks }: Posture): Promise<Recorded> {
  const { low, high, grade } = health ?? { low: '0', high: '100', grade: 'F' as const }
  return granted(
    await driver.call('posture_record', {
      request_id: randomUUID(),
      as_of,
      verdict,
      score: { low, high, grade },
      checks: checks.map(({ name, state, observed, comparison, limit }) => ({
        name,
        state,
        observed,
        comparison,
        limit,
      })),
    }),
  )
}

/** Why there is no verdict; null when there is one. */
export function postureUnknown({ verdict, ground, checks }: Posture): Problem | null {
  if (verdict !== 'unknown') return null
  const open = checks.filter(({ state, counts }) => state === 'unknown' && counts)
  const what = {
    idle: 'The posture is unknown: the system was idle.',
    young: 'The posture is unknown: the window is not covered yet.',
    unwatched: 'The posture is unknown: too few probes are on record.',
    measured: 'The posture is unknown.',
  }[ground.state]
  return {
    code: 'NO_DATA',
    what,
    why: `${ground.why}. Unknown: ${open.map(({ name }) => name).join(', ')}`,
    next:
      ground.state === 'unwatched' || ground.state === 'young'
        ? ['tms posture watch', 'tms posture check --window 15m']
        : ['tms posture check --json'],
  }
}

/** What differs between two looks, by check. */
export type Change = { readonly check: string; readonly from: State | null; readonly to: State | null }

export function changesBetween(
  before: readonly { readonly name: string; readonly state: State }[] | null,
  after: readonly { readonly name: string; readonly state: State }[],
): readonly Change[] {
  if (before === null) return []
  const was = new Map(before.map(({ name, state }) => [name, state]))
  const changed = after.flatMap(({ name, state }): Change[] => {
    const from = was.get(name) ?? null
    was.delete(name)
    return from === state ? [] : [{ check: name, from, to: state }]
  })
  return [...changed, ...[...was].map(([check, from]): Change => ({ check, from, to: null }))]
}
