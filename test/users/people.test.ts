import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { ContractFunction } from '../../src/drivers/contract.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { grantRole } from '../../src/users/users.ts'
import { subjects, type Subject } from '../contract/subjects.ts'

/** Somebody who can sign in always remains, and a name or a token that a tenant took keeps nobody out. */

type Answer = Record<string, unknown>
type Credential = Awaited<ReturnType<Subject['credential']>>

describe.each(Object.entries(subjects))('on %s', (kind, make) => {
  let subject: Subject
  let admin: string
  const operator = kind === 'embedded' ? 'local:operator' : 'operator@example.com'
  beforeAll(async () => {
    subject = await make()
    await call('operator', 'tenants_add', { key: 'acme', name: 'Acme' })
    admin = await person('admin@acme.example', { role: 'tenant_admin', tenant: 'acme' })
  })
  afterAll(async () => {
    await leave()
    await subject.stop()
  })

  // One at a time, and for as long as the same one calls: an embedded database is opened by whoever is meant.
  let present: { readonly who: string; readonly driver: Driver } | undefined
  const leave = async (): Promise<void> => {
    await present?.driver.close()
    present = undefined
  }
  const using = async <T>(who: string, work: (driver: Driver) => Promise<T>): Promise<T> => {
    if (present?.who !== who) {
      await leave()
      present = { who, driver: who === 'operator' ? await subject.operator() : await subject.as(who) }
    }
    return work(present.driver)
  }
  const sql: Subject['sql'] = async (text, parameters) => {
    await leave()
    return subject.sql(text, parameters)
  }
  const call = (who: string, fn: ContractFunction, args: object): Promise<Answer> =>
    using(who, (driver) =>
      // True because each call is written out in this file, and a wrong one is an error.
      driver.call(fn, { ...(/list|whoami/.test(fn) ? {} : { request_id: randomUUID() }), ...args } as never),
    )
  const grant = (principal: string, role: object, credential?: Credential, who = 'operator') =>
    call(who, 'users_grant', { principal, ...role, ...(credential && { credential }) })
  const person = async (principal: string, role: object): Promise<string> => {
    const credential = await subject.credential(`p${randomUUID().slice(0, 8)}`)
    expect(await grant(principal, role, credential)).toHaveProperty('changed', true)
    return credential.name
  }
  const revoke = (principal: string, more: object = {}, who = 'operator') =>
    call(who, 'users_revoke', { principal, ...more })
  const superAdmin = { role: 'super_admin' }
  const viewer = { role: 'viewer', tenant: 'acme' }
  const credentials = async (): Promise<Record<string, string[]>> => {
    const { users } = (await call('operator', 'users_list', {})) as {
      users: { principal: string; credentials: { name: string; state: string }[] }[]
    }
    return Object.fromEntries(
      users.map((user) => [
        user.principal,
        user.credentials.filter(({ state }) => state === 'valid').map(({ name }) => name),
      ]),
    )
  }

  test.each((['postgres', 'jwt', 'local'] as const).map((of) => [of]))(
    'a super_admin whose %s credential opens nothing here is none that remains',
    async (of) => {
      // a token does open a database that has a gateway, and so does an operating-system user an embedded one
      if (of === { embedded: 'local', postgres: undefined, supabase: 'jwt' }[kind]) return
      await grant(`ghost-${of}`, superAdmin, { kind: of, name: `ghost-${of}` })
      await expect(revoke(operator)).rejects.toMatchObject({ code: 'CONFLICT' })
      expect(await call('operator', 'whoami', {})).toHaveProperty('principal', operator)
      await revoke(`ghost-${of}`)
    },
  )

  test('a kind of login that this database has not is refused', async () => {
    const way = kind === 'embedded' ? { login: 'bob' } : { local: 'bob' }
    await expect(
      using('operator', (driver) =>
        grantRole(driver, { who: 'bob@example.com', role: 'developer', now: new Date(), ...way }),
      ),
    ).rejects.toMatchObject({ code: 'INPUT_INVALID' })
    expect(await credentials()).not.toHaveProperty('bob@example.com')
  })

  test('where only such a one is left, the way in for the first operator is open again', async () => {
    await grant('ghost', superAdmin, { kind: kind === 'embedded' ? 'postgres' : 'local', name: 'ghost' })
    await sql(
      `update tms.memberships set revoked_at = now() where role = 'super_admin' and principal_id = (select id from tms.principals where name = '${operator}')`,
    )
    await sql(
      `update tms.logins set revoked_at = now() where principal_id = (select id from tms.principals where name = '${operator}')`,
    )
    // the embedded database's is whoever opens the folder
    if (kind !== 'embedded') {
      expect(await call('operator', 'whoami', {})).toHaveProperty('refused.code', 'CREDENTIAL_EXPIRED')
      const [login] = await sql(
        `select l.kind, l.name from tms.logins l join tms.principals p on p.id = l.principal_id where p.name = $1 order by l.kind limit 1`,
        [operator],
      )
      await expect(
        sql('select tms._bootstrap($1, $2, $3)', [login?.['kind'], login?.['name'], 'another@example.com']),
      ).rejects.toMatchObject({ code: 'TM409' })
      const repair = 'select tms._bootstrap($1, $2, $3) as made'
      expect(await sql(repair, [login?.['kind'], login?.['name'], operator])).toEqual([{ made: true }])
      expect(await sql(repair, [login?.['kind'], login?.['name'], operator])).toEqual([{ made: false }])
    }
    expect(await call('operator', 'whoami', {})).toMatchObject({ roles: [{ role: 'super_admin' }] })
    await revoke('ghost')
  })

  test('who was revoked while another super_admin can sign in stays revoked', async () => {
    const other = await person('other@example.com', superAdmin)
    expect(await revoke(operator)).toHaveProperty('changed', true)
    expect(await call('operator', 'whoami', {})).toHaveProperty('refused.code', 'CREDENTIAL_EXPIRED')
    const [login] = await sql(
      `select l.kind, l.name from tms.logins l join tms.principals p on p.id = l.principal_id where p.name = $1 and l.kind <> 'postgres' or p.name = $1 and $2 order by l.kind limit 1`,
      [operator, kind === 'postgres'],
    )
    await grant(operator, superAdmin, login as Credential, other)
    await revoke('other@example.com')
  })

  test('a token that a tenant took for another name is a super_admin’s to give, revoked or not', async () => {
    const taken = ['squat-1', 'squat-2'].map((squat) => ({
      squat,
      who: `${squat}@example.com`,
      credential: { kind: 'jwt', name: `sub-${randomUUID()}` } as const,
    }))
    for (const { squat, credential } of taken) await grant(squat, viewer, credential, admin)
    await revoke('squat-2')
    for (const { who, credential } of taken) {
      expect(await grant(who, { role: 'developer' }, credential)).toHaveProperty('changed', true)
      expect(await credentials()).toMatchObject({ [who]: [credential.name] })
      // what a super_admin gave is nobody's to take
      expect(await grant('third@example.com', { role: 'developer' }, credential)).toHaveProperty(
        'refused.code',
        'CONFLICT',
      )
    }
    for (const { squat, credential } of taken)
      expect(await grant(squat, viewer, credential, admin)).toHaveProperty('refused.code', 'CONFLICT')
  })

  test('a person of a tenant’s making who is meant by name and token becomes a super_admin’s own, and keeps the role', async () => {
    const credential = { kind: 'jwt', name: `ann-${randomUUID()}` } as const
    await grant('ann@acme.example', viewer, credential, admin)
    expect(await grant('ann@acme.example', { role: 'developer' }, credential)).toMatchObject({
      changed: true,
      roles: [{ role: 'developer' }, { role: 'viewer', tenant: 'acme' }],
    })
  })

  test('in the ledger a namesake of a tenant’s making carries the tenant, and nobody can make such a name', async () => {
    await grant(operator, viewer, { kind: 'jwt', name: randomUUID() }, admin)
    const credential = await subject.credential(`p${randomUUID().slice(0, 8)}`)
    // What opens this database, which a tenant's admin may not give on each of them.
    await sql(
      `insert into tms.logins (principal_id, kind, name) select p.id, $2, $3 from tms.principals p where p.name = $1 and p.home is not null returning 1`,
      [operator, credential.kind, credential.name],
    )
    expect(await call(credential.name, 'whoami', {})).toHaveProperty('principal', `${operator} (acme)`)
    expect(await call(credential.name, 'tenants_add', { key: 'mine', name: 'Mine' })).toHaveProperty(
      'refused.code',
      'ROLE_DENIED',
    )
    const written = await sql(
      `select who from tms.ledger_inbox where action = 'tenants_add' and outcome = 'refused' order by id desc limit 1`,
    )
    expect(written).toEqual([{ who: `${operator} (acme)` }])
    await expect(grant(`${operator} (acme)`, viewer, undefined, admin)).rejects.toMatchObject({ code: 'INPUT_INVALID' })
  })

  test('revoking takes one person and no namesake of a tenant’s making', async () => {
    await grant('root', viewer, { kind: 'jwt', name: randomUUID() }, admin)
    await person('root', superAdmin)
    await grant('root', viewer)
    expect(await credentials()).toMatchObject({ root: [expect.any(String)], 'root (acme)': [expect.any(String)] })
    expect(await revoke('root', { tenant: 'acme' })).toMatchObject({
      refused: {
        code: 'CONFLICT',
        why: 'root, root (acme)',
        next: ['tms users revoke "root (acme)" --tenant acme'],
      },
    })
    expect(await revoke('root')).toHaveProperty('changed', true)
    expect(await credentials()).toMatchObject({ root: [], 'root (acme)': [expect.any(String)] })
    expect(await revoke('root', { role: 'viewer', tenant: 'acme' })).toMatchObject({ changed: true, roles: [] })
    await person('root', superAdmin)
    expect(await revoke('root (acme)')).toHaveProperty('changed', true)
    expect(await credentials()).toMatchObject({ root: [expect.any(String)], 'root (acme)': [] })
    await revoke('root')
  })
})
