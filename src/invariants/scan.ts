import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { exit, TmsError, type Problem } from '../errors.ts'
import { sealBeforeJudging } from '../ledger/ledger.ts'
import { suggest } from '../suggest.ts'

export type Held = Contract['invariants_list']['result']
export type HeldInvariant = Held['invariants'][number]
export type Checked = Contract['invariants_scan']['result']
export type Drift = Contract['invariants_score']['result']
export type History = Contract['invariants_history']['result']

export type Scan = {
  readonly target: string
  readonly at: string
  readonly checks: readonly (Checked & { readonly title: string })[]
  readonly drift: Drift
}

export type ScanWanted = {
  /** All of them when it isn't said. */
  readonly ids?: readonly string[] | undefined
  /** Only those whose interval is over: what a scheduler asks for. */
  readonly due?: boolean | undefined
  /** Try the corrections of what is violated. */
  readonly correct?: boolean | undefined
  readonly report?: ((invariant: string) => void) | undefined
}

/**
 * Checks invariants one after the other, each in a call of its own with its own time limit, corrects what may be corrected,
 * and records the drift score. A check that gives no answer is unknown and keeps none of the others from being made.
 */
export async function scanInvariants(driver: Driver, wanted: ScanWanted = {}): Promise<Scan> {
  // without a running fleet nobody has sealed what was recorded last, and that violates nothing
  await sealBeforeJudging(driver)
  const held = granted(await driver.call('invariants_list', {}))
  const chosen = choose(held, wanted)
  const missed: { invariant: string; why: string }[] = []
  const checks: (Checked & { readonly title: string })[] = []
  for (const { invariant, title, timeout_ms } of chosen) {
    wanted.report?.(invariant)
    const look = async (correct: boolean): Promise<Checked> =>
      granted(
        await driver.call(
          'invariants_scan',
          { request_id: randomUUID(), invariant, since: held.now, ...(correct ? { correct } : {}) },
          // A correction looks, writes and looks again.
          { timeoutMs: timeout_ms * (correct ? 3 : 1) },
        ),
      )
    try {
      let checked = await look(false)
      const violated = checked.outcome === 'violated' && checked.correctable
      if (wanted.correct === true && violated && checked.by === 'this') checked = await look(true)
      checks.push({ ...checked, title })
    } catch (error) {
      // The embedded database is ended by a check over its time, and a lost connection takes the answer with it.
      if (!(error instanceof TmsError) || error.exit !== exit.outside) throw error
      const why = `the check gave no answer: ${error.message} ${error.why}`
      missed.push({ invariant, why })
      checks.push({ ...unanswered, invariant, why, title })
    }
  }
  return { target: driver.target.name, at: held.now, checks, drift: await score(driver, missed) }
}

/** Twice when the first doesn't arrive: after a check that ended the engine, opening it again may take a call's whole time. */
async function score(driver: Driver, missed: { invariant: string; why: string }[]): Promise<Drift> {
  const args = { request_id: randomUUID(), missed }
  try {
    return granted(await driver.call('invariants_score', args))
  } catch (error) {
    if (missed.length === 0 || !(error instanceof TmsError) || error.exit !== exit.outside) throw error
    return granted(await driver.call('invariants_score', args))
  }
}

const unanswered = {
  priority: 'P1',
  outcome: 'unknown',
  violations: null,
  more: false,
  checked_at: null,
  ms: null,
  correctable: false,
  by: 'this',
} as const

function choose({ invariants, now }: Held, { ids, due }: ScanWanted): readonly HeldInvariant[] {
  for (const id of ids ?? []) if (!invariants.some(({ invariant }) => invariant === id)) throw unknownId(id, invariants)
  return invariants.filter(({ invariant, checked_at, every_ms }) => {
    if (ids !== undefined && !ids.includes(invariant)) return false
    return due !== true || checked_at === null || Date.parse(now) - Date.parse(checked_at) >= Number(every_ms)
  })
}

function unknownId(id: string, invariants: readonly HeldInvariant[]): TmsError {
  const meant = suggest(
    id,
    invariants.map(({ invariant }) => invariant),
  )
  return new TmsError({
    code: 'NOT_FOUND',
    what: `There is no invariant ${id.slice(0, 60)} in this database.`,
    why: meant === null ? 'No policy of this name was loaded.' : `Did you mean ${meant}?`,
    next: ['tms invariants list', 'tms invariants load'],
  })
}

export async function listInvariants(driver: Driver): Promise<Held> {
  return granted(await driver.call('invariants_list', {}))
}

export async function showInvariant(driver: Driver, id: string): Promise<HeldInvariant> {
  const { invariants } = granted(await driver.call('invariants_list', { invariant: id }))
  const [found] = invariants
  if (found) return found
  throw unknownId(id, (await listInvariants(driver)).invariants)
}

export async function invariantsHistory(
  driver: Driver,
  { invariant, limit }: { invariant?: string | undefined; limit: number },
): Promise<History> {
  const history = granted(await driver.call('invariants_history', { invariant, limit }))
  // One that was removed has no more than its history.
  if (invariant !== undefined && history.violations.length === 0) await showInvariant(driver, invariant)
  return history
}

/** How a scan ends: yes, no, or nobody knows. No is stronger: what is known to be wrong is wrong whatever else isn't known. */
export function scanVerdict({ checks, drift }: Scan): 'holds' | 'violated' | 'unknown' {
  if (checks.some(({ outcome }) => outcome === 'violated')) return 'violated'
  if (checks.some(({ outcome }) => outcome === 'unknown')) return 'unknown'
  // None is due: that is fine. None is loaded: then nobody knows anything.
  return (drift.detail.invariants ?? 0) > 0 ? 'holds' : 'unknown'
}

export function unknownScan({ checks }: Scan): Problem {
  const unknown = checks.filter(({ outcome }) => outcome === 'unknown')
  const [first] = unknown
  if (first === undefined) {
    return {
      code: 'NO_DATA',
      what: 'Nothing was checked: no invariant is loaded.',
      why: 'They come from policies/invariants, with tms init, tms db push or tms invariants load.',
      next: ['tms invariants load'],
    }
  }
  return {
    code: 'NO_DATA',
    what: `${unknown.length} of ${checks.length} could not be checked.`,
    why: `${first.invariant}: ${first.why}`,
    next: [`tms invariants show ${first.invariant}`, 'tms invariants load'],
  }
}
