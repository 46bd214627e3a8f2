import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { parseSeconds } from '../duration.ts'
import { TmsError } from '../errors.ts'

export async function listUsers(
  driver: Driver,
  { tenant }: { tenant?: string | undefined },
): Promise<Contract['users_list']['result']> {
  return granted(await driver.call('users_list', { tenant }))
}

export type Grant = {
  readonly who: string
  readonly role: string
  readonly tenant?: string | undefined
  readonly expires?: string | undefined
  /** At most one of the three: how the person is recognised. */
  readonly subject?: string | undefined
  readonly login?: string | undefined
  readonly local?: string | undefined
  readonly now: Date
}

export type Granted = Contract['users_grant']['result'] & {
  /** What somebody else must run before this login can call tms at all. */
  readonly statement: string | null
}

export async function grantRole(driver: Driver, grant: Grant): Promise<Granted> {
  const { who, role, tenant, expires, subject, login, local, now } = grant
  const { name, shared } = driver.target
  if (shared ? local !== undefined : login !== undefined) {
    throw new TmsError({
      code: 'INPUT_INVALID',
      what: shared ? `${name} knows no operating-system users` : `${name} has no logins`,
      why: shared
        ? 'it knows its callers by a login or by a token'
        : 'it knows its callers by the operating-system user alone',
      next: [`tms users grant ${who} --role ${role} ${shared ? '--login <login>' : '--local <user>'}`],
    })
  }
  const credential =
    subject !== undefined
      ? { kind: 'jwt' as const, name: subject }
      : login !== undefined
        ? { kind: 'postgres' as const, name: login }
        : local !== undefined
          ? { kind: 'local' as const, name: local }
          : undefined
  const until =
    expires === undefined
      ? undefined
      : new Date(now.getTime() + parseSeconds(expires, { flag: '--expires', most: '3650d' }) * 1000)
  const result = granted(
    await driver.call('users_grant', {
      request_id: randomUUID(),
      principal: who,
      role,
      tenant,
      credential,
      expires_at: until?.toISOString().replace('Z', '000Z'),
    }),
  )
  return { ...result, statement: credential?.kind === 'postgres' ? await letIn(driver, credential.name) : null }
}

/** Makes a login a member of tms_caller, without which no function is its to call; else what must be run for that. */
async function letIn(driver: Driver, login: string): Promise<string | null> {
  if (!driver.target.shared) return null
  const name = `"${login.replaceAll('"', '""')}"`
  const statement = `grant tms_caller to ${name}`
  // A connection that takes no SQL can't look. Granted twice it does no harm.
  if (driver.administration === undefined) return statement
  try {
    return await driver.administration.transaction(async (run) => {
      const [role] = await run(
        `select pg_has_role(rolname, 'tms_caller', 'usage') as member from pg_roles where rolname = $1`,
        [login],
      )
      if (role === undefined) return `create role ${name} login in role tms_caller`
      if (role['member'] !== true) await run(statement)
      return null
    })
  } catch (error) {
    // The role is granted already: whatever stood in the way here, the rest is said and not lost.
    if (error instanceof TmsError) return statement
    throw error
  }
}

export async function revokeRole(
  driver: Driver,
  { who, role, tenant }: { who: string; role?: string | undefined; tenant?: string | undefined },
): Promise<Contract['users_revoke']['result']> {
  return granted(await driver.call('users_revoke', { request_id: randomUUID(), principal: who, role, tenant }))
}
