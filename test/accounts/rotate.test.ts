import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { rotateAccount } from '../../src/accounts/accounts.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
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
