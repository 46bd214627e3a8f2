import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { parseSeconds } from '../duration.ts'

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

export async function grantRole(driver: Driver, grant: Grant): Promise<Contract['users_grant']['result']> {
  const { who, role, tenant, expires, subject, login, local, now } = grant
  const credential =
    subject !== undefined
      ? { kind: 'jwt' as const, name: subject }
      : login !== undefined
        ? { kind: 'postgres' as const, name: login }
        : local !== undefined
          ? { kind: 'local' as const, name: local }
          : undefined
  const until = expires === undefined ? undefined : new Date(now.getTime() + parseSeconds(expires) * 1000)
  return granted(
    await driver.call('users_grant', {
      request_id: randomUUID(),
      principal: who,
      role,
      tenant,
      credential,
      expires_at: until?.toISOString().replace('Z', '000Z'),
    }),
  )
}

export async function revokeRole(
  driver: Driver,
  { who, role, tenant }: { who: string; role?: string | undefined; tenant?: string | undefined },
): Promise<Contract['users_revoke']['result']> {
  return granted(await driver.call('users_revoke', { request_id: randomUUID(), principal: who, role, tenant }))
}
