import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Priority } from '../drivers/contract/incidents.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError, type Problem } from '../errors.ts'
import { words } from './words.ts'

/** Soft degrade, rollback and safe mode. */

/** `tenant`: the only one that it was narrowed to; null: the whole fleet. */
export type Degraded = {
  readonly target: string
  readonly tenant: string | null
} & Contract['incident_soft_degrade']['result']

export async function softDegrade(
  driver: Driver,
  { tenant, why }: { readonly tenant?: string | undefined; readonly why: string },
): Promise<Degraded> {
  const scope = tenant === undefined ? {} : { tenant }
  const done = granted(
    await driver.call('incident_soft_degrade', { request_id: randomUUID(), ...scope, why: words(why, 1000) }),
  )
  return { target: driver.target.name, tenant: tenant ?? null, ...done }
}

export type RollbackPlan = Contract['incident_rollback_plan']['result'] & {
  readonly target: string
  /** What is typed to consent: which database, and exactly these changes. */
  readonly name: string
  /**
   * A service account pulls it: it was granted this lever to use it, and nobody can be asked. Not where one tenant's alarm asks for it:
   * it would do more than was asked, and earlier values may start things again.
   */
  readonly unattended: boolean
}

export async function planRollback(driver: Driver, to: string | undefined, tenant?: string): Promise<RollbackPlan> {
  const [answer, who] = await Promise.all([
    driver.call('incident_rollback_plan', to === undefined ? {} : { to: moment(to) }),
    driver.call('whoami', {}),
  ])
  const plan = granted(answer)
  return {
    ...plan,
    target: driver.target.name,
    name: `${driver.target.consentName}@${plan.plan ?? 'nothing'}`,
    unattended: granted(who).kind === 'service' && tenant === undefined,
  }
}

/** With nothing to change and no posture on record that was green, nobody knows whether the flags of now are the ones to have. */
export function rollbackUnknown({ basis, changes }: RollbackPlan): Problem | null {
  if (basis !== 'flags' || changes.length > 0) return null
  return {
    code: 'NO_DATA',
    what: 'Nothing was rolled back: whether any state was green is not known.',
    why: 'no posture on record was green, and the newest state in which the required flags had their values is that of now',
    next: ['tms posture check', 'tms incident rollback --to <time>'],
  }
}

export type Wanted = { readonly target: string } & Contract['incident_rollback_wanted']['result']

/** What an alarm asks for is on record before anything is planned: a person may have to consent, or nothing is there to go back to. */
export async function wantRollback(
  driver: Driver,
  { priority, why }: { readonly priority: Priority; readonly why: string },
): Promise<Wanted> {
  const opened = granted(
    await driver.call('incident_rollback_wanted', { request_id: randomUUID(), priority, why: words(why, 1000) }),
  )
  return { target: driver.target.name, ...opened }
}

export type RolledBack = { readonly target: string } & Contract['incident_rollback']['result']

export async function rollBack(
  driver: Driver,
  plan: RollbackPlan,
  { to, why }: { readonly to: string | undefined; readonly why: string },
): Promise<RolledBack> {
  const done = granted(
    await driver.call('incident_rollback', {
      request_id: randomUUID(),
      plan: plan.plan ?? '',
      why: words(why, 1000),
      ...(to === undefined ? {} : { to: moment(to) }),
    }),
  )
  return { target: driver.target.name, ...done }
}

function moment(text: string): string {
  const at = new Date(text)
  if (!/^\d{4}-\d\d-\d\d/.test(text) || Number.isNaN(at.getTime())) {
    throw new TmsError({
      code: 'USAGE',
      what: `"${text}" is no time.`,
      why: 'It takes a UTC time as it stands in the history: 2026-11-20T03:00:00Z.',
      next: ['tms flags history'],
    })
  }
  return text
}

export type SafeMode = { readonly target: string; readonly on: boolean; readonly epoch: number } & Partial<
  Pick<
    Contract['safe_mode_on']['result'],
    'halt' | 'recorded' | 'fenced' | 'ms' | 'terminated' | 'survivors' | 'workers' | 'already' | 'since' | 'by'
  >
>

export async function safeModeOn(driver: Driver, why: string): Promise<SafeMode> {
  const done = granted(await driver.call('safe_mode_on', { why: words(why, 1000) }))
  return { target: driver.target.name, on: true, ...done }
}

/** What of it the database could not write down, in sentences. */
export function unwritten({ halt, recorded }: SafeMode): readonly string[] {
  return [
    ...(halt === null
      ? ['Who turned it on, when and why could not be written down: tms agents status cannot say it.']
      : []),
    ...(recorded === false ? ['The ledger does not have it. Once it takes rows again: tms incident safe-mode on'] : []),
  ]
}

/** Safe mode is on, and something that had begun may still commit; null: nothing may. */
export function notSafe({ fenced, survivors }: SafeMode): Problem | null {
  if (fenced !== false) return null
  return {
    code: 'DB_BUSY',
    what: `Safe mode is on, and ${(survivors ?? []).join(', ') || 'something'} may still commit.`,
    why: 'What had begun could not be ended: a prepared transaction, or a session of a superuser.',
    next: ['tms incident safe-mode on', 'select gid, prepared, owner from pg_prepared_xacts'],
  }
}

/** The token itself stays here: the database compares its hash. */
export async function safeModeOff(driver: Driver, tokenSha256: string, why: string): Promise<SafeMode> {
  const { epoch } = granted(
    await driver.call('safe_mode_off', {
      request_id: randomUUID(),
      override_token_sha256: tokenSha256,
      why: words(why, 1000),
    }),
  )
  return { target: driver.target.name, on: false, epoch }
}
