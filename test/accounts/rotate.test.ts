import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { rotateAccount } from '../../src/accounts/accounts.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { TmsError } from '../../src/errors.ts'
import { grantRole } from '../../src/users/users.ts'
import { postgresSubject, type Subject } from '../contract/subjects.ts'

let subject: Subject
let place: string
beforeAll(async () => {
  subject = await postgresSubject()
  const [row] = await subject.sql(`select current_setting('port') as port, current_database() as name`)
  place = `127.0.0.1:${String(row?.['port'])}/${String(row?.['name'])}`
})
afterAll(() => subject.stop())

const rotation = { account: 'agents', kind: 'postgres', overlap: '1h' } as const

/** Signs in as a login and asks who that is. */
async function whoIs(login: string, password: string): Promise<string> {
  const url = `postgres://${login}:${encodeURIComponent(password)}@${place}`
  const driver = await openPostgres({ driver: 'postgres', url, connectTimeoutMs: 5_000, callTimeoutMs: 5_000 })
  try {
    return granted(await driver.call('whoami', {})).principal
  } finally {
    await driver.close()
  }
}

test('rotating makes a login that works, with a limit of connections, and whose password no server saw', async () => {
  const driver = await subject.operator()
  const { credential, secret, statement } = await rotateAccount(driver, { ...rotation, now: new Date() })
  await driver.close()
  expect(statement).toBeNull()
  expect(await whoIs(credential.name, secret ?? '')).toBe('agents')
  const [role] = await subject.sql(`select rolconnlimit as most, rolpassword from pg_authid where rolname = $1`, [
    credential.name,
  ])
  expect(role).toEqual({ most: 20, rolpassword: expect.stringMatching(/^SCRAM-SHA-256\$4096:/) })
  await expect(whoIs(credential.name, 'another password')).rejects.toMatchObject({ code: 'DB_AUTH_FAILED' })
})

test('where this connection may not make logins, the statement to run is given instead, and works', async () => {
  const operator = await subject.operator()
  const { name } = await subject.credential('second')
  granted(
    await operator.call('users_grant', {
      request_id: randomUUID(),
      principal: 'second@example.com',
      role: 'super_admin',
      credential: { kind: 'postgres', name },
    }),
  )
  await operator.close()
  const driver = await subject.as(name)
  const { credential, secret, statement } = await rotateAccount(driver, { ...rotation, account: 'ci', now: new Date() })
  await driver.close()
  expect(statement).toContain(`create role "${credential.name}"`)
  expect(statement).not.toContain(secret)
  await expect(whoIs(credential.name, secret ?? '')).rejects.toMatchObject({ code: 'DB_AUTH_FAILED' })
  await subject.sql(`${statement ?? ''}; select 1`)
  expect(await whoIs(credential.name, secret ?? '')).toBe('ci')
})

test('a token is named by whoever issues tokens, and a key is stored as its hash', async () => {
  const driver = await subject.operator()
  await expect(rotateAccount(driver, { ...rotation, kind: 'jwt', now: new Date() })).rejects.toMatchObject({
    code: 'USAGE',
  })
  expect((await rotateAccount(driver, { ...rotation, kind: 'jwt', name: 'a-sub', now: new Date() })).secret).toBeNull()
  const { secret } = await rotateAccount(driver, { ...rotation, kind: 'key', now: new Date() })
  await driver.close()
  const [stored] = await subject.sql(
    `select string_agg(x::text, ' ') as all from (select l::text from tms.logins l union all select r::text from tms.requests r union all select i::text from tms.ledger_inbox i) s (x)`,
  )
  expect(secret).toMatch(/^\S{43}$/)
  expect(String(stored?.['all'])).not.toContain(secret)
})

describe('a name that the login could not have', () => {
  const live = () =>
    subject.sql(
      `select l.name from tms.logins l join tms.principals p on p.id = l.principal_id where p.name = 'agents' and l.kind = 'postgres' and l.expires_at > clock_timestamp() order by l.name`,
    )
  const refused = async (name: string, code: string, driver: Driver) => {
    const before = await live()
    expect(before).not.toEqual([])
    await expect(rotateAccount(driver, { ...rotation, overlap: '0s', name, now: new Date() })).rejects.toMatchObject({
      code,
    })
    expect(await live()).toEqual(before)
  }

  test("somebody else's login does not become the account, and the old one goes on", async () => {
    await subject.sql('create role stranger login')
    await subject.sql('create role colleague login in role tms_caller')
    const driver = await subject.operator()
    await rotateAccount(driver, { ...rotation, now: new Date() })
    await refused('stranger', 'CONFLICT', driver)
    await refused('colleague', 'CONFLICT', driver)
    // as over a connection that takes no SQL
    const api: Driver = { ...driver, call: driver.call.bind(driver) }
    Reflect.deleteProperty(api, 'administration')
    await refused('stranger', 'CONFLICT', api)
    const [mightiest] = await subject.sql('select rolname from pg_roles where rolsuper limit 1')
    await refused(String(mightiest?.['rolname']), 'CONFLICT', api)
    await driver.close()
  })

  test('nor one that Postgres would cut off', async () => {
    const driver = await subject.operator()
    await refused('x'.repeat(64), 'INPUT_INVALID', driver)
    await refused('ü'.repeat(32), 'INPUT_INVALID', driver)
    await expect(
      grantRole(driver, { who: 'long@example.com', role: 'developer', login: 'y'.repeat(64), now: new Date() }),
    ).rejects.toMatchObject({ code: 'INPUT_INVALID' })
    const name = 'x'.repeat(63)
    const { secret } = await rotateAccount(driver, { ...rotation, name, now: new Date() })
    await driver.close()
    expect(await whoIs(name, secret ?? '')).toBe('agents')
  })
})

test('where making the login fails after all, the secret and the statement are said and not lost', async () => {
  const driver = await subject.operator()
  const administration: Driver['administration'] = {
    ...driver.administration,
    transaction: () =>
      Promise.reject(new TmsError({ code: 'DB_UNREACHABLE', what: 'gone', why: 'gone', next: ['again'] })),
  }
  const broken: Driver = { ...driver, call: driver.call.bind(driver), administration }
  const { credential, secret, statement } = await rotateAccount(broken, { ...rotation, now: new Date() })
  await driver.close()
  await subject.sql(`${statement ?? ''}; select 1`)
  expect(await whoIs(credential.name, secret ?? '')).toBe('agents')
})
