import { createHash, randomUUID } from 'node:crypto'
import { checkIds, shownPayload } from '../agents/runs.ts'
import type { Contract } from '../drivers/contract.ts'
import type { errorClasses } from '../drivers/contract/fleet.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { parseSeconds } from '../duration.ts'
import { TmsError } from '../errors.ts'

export type Letter = Contract['dlq_list']['result']['letters'][number]
export type Stats = Contract['dlq_stats']['result']
export type ReplayRun = Stats['replays'][number]
export type ErrorClass = (typeof errorClasses)[number]

export type LettersWanted = {
  readonly tenant?: string | undefined
  readonly class?: string | undefined
  readonly status?: string | undefined
  readonly limit: number
}

export async function listLetters(driver: Driver, wanted: LettersWanted): Promise<Contract['dlq_list']['result']> {
  const { tenant, status, limit } = wanted
  return granted(await driver.call('dlq_list', { tenant, class: wanted.class, status, limit }))
}

/** One dead letter with its payload, as far as the caller may see it and without the secrets that a replay needs. */
export async function showLetter(
  driver: Driver,
  { id, tenant }: { id: string; tenant?: string | undefined },
): Promise<Letter> {
  checkIds([id], 'dead letter')
  const { letters } = granted(await driver.call('dlq_list', { tenant, id, limit: 1 }))
  const [letter] = letters
  if (letter) return { ...letter, payload: shownPayload(letter.payload) }
  throw new TmsError({
    code: 'NOT_FOUND',
    what: `there is no dead letter ${id}`,
    why: "it never was, or it is another tenant's",
    next: ['tms dlq list'],
  })
}

export async function dlqStats(driver: Driver, { tenant }: { tenant?: string | undefined }): Promise<Stats> {
  return granted(await driver.call('dlq_stats', { tenant }))
}

// ---- snooze and discard

export type Disposal = { readonly tenant: string; readonly ids: readonly string[]; readonly why: string }
export type Disposed = {
  readonly action: 'snooze' | 'discard'
  readonly tenant: string
  readonly ids: readonly string[]
  readonly until: string | null
  readonly changed: number
}

/** Leaves them alone until then. What is asked of them ends by itself, so nobody has to consent. */
export async function snooze(driver: Driver, { tenant, ids, why }: Disposal, until: string): Promise<Disposed> {
  return dispose(driver, { tenant, ids: checkIds(ids, 'dead letter'), action: 'snooze', until, why })
}

export async function discard(driver: Driver, { tenant, ids, why }: Disposal): Promise<Disposed> {
  return dispose(driver, { tenant, ids: checkIds(ids, 'dead letter'), action: 'discard', why })
}

async function dispose(driver: Driver, args: Omit<Contract['dlq_dispose']['args'], 'request_id'>): Promise<Disposed> {
  const { changed } = granted(await driver.call('dlq_dispose', { request_id: randomUUID(), ...args }))
  const { action, tenant, ids, until = null } = args
  return { action, tenant, ids, until, changed }
}

/** The end of a snooze: a point in time, or so long from now. As it travels: UTC with six digits. */
export function snoozeEnd(
  { until, for: span }: { until?: string | undefined; for?: string | undefined },
  now: Date,
): string {
  const wrong = (what: string, why: string) =>
    new TmsError({ code: 'INPUT_INVALID', what, why, next: ['tms dlq snooze --help'] })
  if ((until === undefined) === (span === undefined)) {
    throw new TmsError({
      code: 'USAGE',
      what: 'It is not said how long.',
      why: 'Give --for or --until, one of the two.',
      next: ['tms dlq snooze --help'],
    })
  }
  // A time without its zone is hours off for somebody.
  if (until !== undefined && !/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)$/.test(until)) {
    throw wrong(`"${until.slice(0, 60)}" is no point in time.`, 'It is given with its zone: 2027-01-31T08:00:00Z.')
  }
  const end =
    until === undefined
      ? now.getTime() + parseSeconds(span ?? '', { flag: '--for', most: '3650d' }) * 1000
      : Date.parse(until)
  if (Number.isNaN(end) || Math.abs(end) > 8.64e15)
    throw wrong('There is no such point in time.', 'It is in no calendar.')
  if (end <= now.getTime()) throw wrong('The snooze would be over already.', 'Its end lies in the past.')
  return new Date(end).toISOString().replace('Z', '000Z')
}

/** What a person types to let them go: few by their ids, many by number and digest. */
export function discardName({ tenant, ids }: Pick<Disposal, 'tenant' | 'ids'>): string {
  const sorted = checkIds(ids, 'dead letter').toSorted((a, b) => Number(a) - Number(b))
  const list = sorted.join(',')
  if (sorted.length <= 5) return `${tenant}/${list}`
  return `${tenant}/${sorted.length}-${createHash('sha256').update(list).digest('hex').slice(0, 8)}`
}

// ---- replay

export type ReplayWanted = {
  readonly tenant: string
  readonly ids?: readonly string[] | undefined
  readonly class?: ErrorClass | undefined
  readonly limit?: number | undefined
}

export type ReplayPlan = Contract['dlq_plan']['result'] & {
  /** What a person types to let exactly this happen. */
  readonly name: string
  /** The command that does it; null while it can't be done. */
  readonly command: string | null
}

/** The dry run. It changes nothing. */
export async function planReplay(driver: Driver, wanted: ReplayWanted): Promise<ReplayPlan> {
  const ids = wanted.ids === undefined ? undefined : checkIds(wanted.ids, 'dead letter')
  const { tenant, limit } = wanted
  const plan = granted(await driver.call('dlq_plan', { tenant, ids, class: wanted.class, limit }))
  const name = `${plan.tenant}/${plan.plan}`
  // By their ids: whatever else dies meanwhile, the plan of the same items keeps its name.
  const items = plan.items.map(({ id }) => id).join(',')
  return {
    ...plan,
    name,
    command:
      plan.items.length === 0
        ? null
        : `tms dlq replay --tenant ${plan.tenant} --ids ${items} --execute --why <reason> --confirm ${name}`,
  }
}

/** Throws what stands against a plan before anybody is asked to consent to it. */
export function checkReplayable({ tenant, barred, items, skipped }: ReplayPlan): void {
  if (barred !== null) {
    throw new TmsError({
      code: 'REPLAY_LIMIT',
      what: `Tenant ${tenant} may not replay now.`,
      why: barred,
      next: [`tms dlq stats --tenant ${tenant}`, 'tms agents status'],
    })
  }
  if (items.length > 0) return
  throw new TmsError({
    code: 'NOT_FOUND',
    what: 'There is nothing to replay.',
    why: skipped[0]
      ? `${skipped.length} were left out; dead letter ${skipped[0].id}: ${skipped[0].why}`
      : 'No open dead letter was found.',
    next: [`tms dlq list --tenant ${tenant}`],
  })
}

export type StartedReplay = Contract['dlq_replay']['result'] & {
  readonly tenant: string
  readonly plan: string
  /** How it stands; null while nobody waited for it. */
  readonly outcome: ReplayRun | null
}

/** Does what the plan showed, or is refused. */
export async function executeReplay(driver: Driver, plan: ReplayPlan, why: string): Promise<StartedReplay> {
  const started = await driver.call('dlq_replay', {
    request_id: randomUUID(),
    tenant: plan.tenant,
    ids: plan.items.map(({ id }) => id),
    plan: plan.plan,
    why,
  })
  return { ...granted(started), tenant: plan.tenant, plan: plan.plan, outcome: null }
}

export type Waiting = {
  readonly now: () => number
  readonly pause: (ms: number) => Promise<void>
  readonly forMs: number
  readonly report: (run: ReplayRun) => void
}

/** Follows a run until it has ended, or the time is up: then its last state, which may be unknown. */
export async function followReplay(
  driver: Driver,
  { run, tenant }: Pick<StartedReplay, 'run' | 'tenant'>,
  { now, pause, forMs, report }: Waiting,
): Promise<ReplayRun | null> {
  const until = now() + forMs
  for (;;) {
    const { replays } = await dlqStats(driver, { tenant })
    // It may not be there yet: statistics may come from a replica.
    const state = replays.find((replay) => replay.run === run) ?? null
    if (state !== null) report(state)
    if (state !== null && state.finished_at !== null) return state
    const left = until - now()
    if (left <= 0) return state
    await pause(Math.min(500, left))
  }
}

/** Whether everything that was replayed worked. Null: it hasn't ended, so that isn't known. */
export function replayWorked(outcome: ReplayRun | null): boolean | null {
  if (outcome === null) return null
  if (outcome.stopped_why !== null || outcome.failed > 0) return false
  return outcome.finished_at === null ? null : true
}
