import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import type { Pgbouncer } from '../servers/pgbouncer.ts'
import { startPgbouncer } from '../servers/pgbouncer.ts'
import type { Database, Postgres } from '../servers/postgres.ts'
import { query, startPostgres } from '../servers/postgres.ts'
import { missing, until } from '../servers/process.ts'
import { ask, connectionTo, createTinySchema, define, failureOf, says, using } from './schema.ts'

describe.skipIf(missing('pgbouncer')).each([
  ['that refuses startup parameters it does not know', {}],
  ['that ignores startup parameters', { ignore_startup_parameters: 'statement_timeout' }],
  [
    'that keeps one server connection for each client',
    { pool_mode: 'session', ignore_startup_parameters: 'statement_timeout' },
  ],
])('behind a pooler %s', (_, settings) => {
  let postgres: Postgres
  let database: Database
  let pooler: Pgbouncer
  let url: string
  const sessionMode = 'pool_mode' in settings
  beforeAll(async () => {
    postgres = await startPostgres({ own: true })
    database = await postgres.createDatabase()
    await createTinySchema(database)
    pooler = await startPgbouncer(postgres, database, {
      ...settings,
      ...(sessionMode ? { default_pool_size: '20' } : {}),
    })
    url = pooler.urlOf(database.url)
  })
  afterAll(async () => {
    await pooler.stop()
    await postgres.stop()
  })

  test('many calls at once are all answered, and each once', async () => {
    const driver = await openPostgres(connectionTo(url))
    const other = await openPostgres(connectionTo(url))
    const adds = Array.from({ length: 100 }, (_, i) => ({ request_id: randomUUID(), key: `t${i}`, name: `T${i}` }))
    const answers = await Promise.all(adds.map((add, i) => (i % 2 ? driver : other).call('tenants_add', add)))
    expect(answers.map((answer) => 'tenant' in answer && answer.tenant.key)).toEqual(adds.map(({ key }) => key))
    expect(await query(database.url, 'select count(*)::int as n, max(times) as times from tms.tenants')).toEqual([
      { n: 100, times: 1 },
    ])
    await driver.close()
    await other.close()
  })

  test('the connections from before the pooler was noticed are given back', async () => {
    await define(database, 'contract_version', says(`'fine'`))
    await using(connectionTo(url), async (driver) => {
      for (let i = 0; i < 3; i++) await Promise.all(Array.from({ length: 8 }, () => ask(driver)))
      const console = Object.assign(new URL(url), { pathname: '/pgbouncer' }).toString()
      await until('eight are left', async () => {
        const clients = await query(console, 'show clients')
        return clients.filter((client) => client['database'] === database.name).length === 8
      })
    })
  })

  test('a call still ends at its time limit, and says so', async () => {
    await define(database, 'contract_version', says(`'quick'`))
    await using(connectionTo(url, { callTimeoutMs: 3_000 }), async (driver) => {
      await ask(driver)
      await define(database, 'contract_version', `perform pg_sleep(30); ${says('1')}`)
      const error = await failureOf(ask(driver))
      expect(error).toMatchObject({ code: 'DB_TIMEOUT', message: expect.stringContaining('statement timeout') })
      await define(database, 'contract_version', says(`'quick'`))
      expect(await ask(driver)).toBe('quick')
    })
  })

  test('a failed call leaves nothing of its transaction behind', async () => {
    await define(database, 'contract_version', says(`'fine'`))
    await using(connectionTo(url), async (driver) => {
      await ask(driver)
      await define(
        database,
        'contract_version',
        `insert into tms.tenants (request_id, key, name) values ('half', 'half', 'half'); raise 'no' using errcode = 'TM409';`,
      )
      expect(await failureOf(ask(driver))).toMatchObject({ code: 'CONFLICT' })
    })
    expect(await query(database.url, `select 1 from tms.tenants where key = 'half'`)).toEqual([])
  })

  test('nothing stays behind on the sessions that others get', async () => {
    await define(database, 'contract_version', says(`'fine'`))
    await using(connectionTo(url, { callTimeoutMs: 4_321 }), async (driver) => {
      await Promise.all(Array.from({ length: 20 }, () => ask(driver)))
      const stop = await driver.listen('flags', () => undefined)
      await stop()
    })
    const left = await query(
      url,
      `select current_setting('statement_timeout') as timeout, current_setting('lock_timeout') as lock,
         (select count(*)::int from pg_prepared_statements) as prepared,
         (select count(*)::int from pg_listening_channels()) as listening`,
    )
    expect(left).toEqual([{ timeout: '0', lock: '0', prepared: 0, listening: 0 }])
  })

  test('changes are heard by asking, for a push would not arrive', async () => {
    await using(connectionTo(url), async (driver) => {
      let heard = 0
      const stop = await driver.listen('flags', () => heard++)
      await query(database.url, `insert into tms.signals_sent (channel) values ('control')`)
      await query(database.url, `insert into tms.signals_sent (channel) values ('flags')`)
      await until('the signal', () => heard > 0)
      await stop()
      expect(heard).toBe(1)
    })
  })

  test('a transaction of administration stays on one session', async () => {
    await using(connectionTo(url), async (driver) => {
      const rows = await driver.administration?.transaction(async (run) => {
        await run('create temporary table scratch on commit drop as select 7 as x')
        return run('select x from scratch')
      })
      expect(rows).toEqual([{ x: 7 }])
    })
  })

  test('a wrong password and a missing database are named as such', async () => {
    const { username, password } = new URL(url)
    const wrong = await failureOf(using(connectionTo(url.replace(password, 'wrong')), ask))
    expect(wrong).toMatchObject({ code: 'DB_AUTH_FAILED', message: expect.stringContaining(`password of ${username}`) })
    const missing = await failureOf(using(connectionTo(url.replace(database.name, 'missing')), ask))
    expect(missing).toMatchObject({ code: 'DB_AUTH_FAILED', message: expect.stringContaining('no database missing') })
  })
})
