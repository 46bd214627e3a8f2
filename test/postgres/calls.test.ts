import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { ContractFunction } from '../../src/drivers/contract.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import type { Database, Postgres } from '../servers/postgres.ts'
import { query, startPostgres } from '../servers/postgres.ts'
import { until } from '../servers/process.ts'
import type { Wire } from '../servers/wire.ts'
import { startWire } from '../servers/wire.ts'
import { ask, connectionTo, createTinySchema, define, failureOf, says, using } from './schema.ts'

let postgres: Postgres
let database: Database
beforeAll(async () => {
  postgres = await startPostgres({ own: true })
  database = await postgres.createDatabase()
  await createTinySchema(database)
})
afterAll(() => postgres.stop())

describe('a call', () => {
  let driver: Driver
  beforeAll(async () => {
    driver = await openPostgres(connectionTo(database.url))
  })
  afterAll(() => driver.close())

  test('gives the answer of the function', async () => {
    const added = await driver.call('tenants_add', { request_id: randomUUID(), key: 'acme', name: 'Acme "€" 🚚' })
    expect(added).toMatchObject({ tenant: { key: 'acme', name: 'Acme "€" 🚚' } })
    const listed = await driver.call('tenants_list', {})
    expect(listed).toMatchObject({ tenants: [{ key: 'acme', created_at: expect.stringMatching(/\.\d{6}Z$/) }] })
  })

  test('gives a refusal as an answer', async () => {
    const refused = { code: 'ROLE_DENIED', what: 'no', why: 'because', next: ['tms whoami'] }
    await define(database, 'contract_version', `return '${JSON.stringify({ refused })}';`)
    expect(await driver.call('contract_version', {})).toEqual({ refused })
  })

  test('of a function that is not in the contract is refused here, whatever its name is', async () => {
    // The cast stands for a caller without types.
    const error = await failureOf(driver.call('pg_sleep(1), tms.whoami' as ContractFunction, {}))
    expect(error).toMatchObject({ code: 'BUG', exit: 70 })
  })

  test.each([
    ['null', 'return null;', 'CONTRACT_MISMATCH'],
    ['another shape', `return '{"contract":"one"}';`, 'CONTRACT_MISMATCH'],
    [
      'a raise of ours',
      `raise 'the fence is up' using errcode = 'TM403', detail = 'since noon', hint = 'tms a' || chr(10) || 'tms b';`,
      'ROLE_DENIED',
    ],
    [
      'a broken constraint',
      `insert into tms.tenants (request_id, key, name) values ('same', 'k', 'n'), ('same', 'k', 'n');`,
      'INPUT_INVALID',
    ],
    ['a value of the wrong type', `perform 'rosebud'::int;`, 'INPUT_INVALID'],
    ['a missing table', `perform * from tms.not_there;`, 'SCHEMA_OLDER'],
    ['a missing permission', `perform pg_catalog.pg_read_file('/etc/passwd');`, 'ROLE_DENIED'],
    [
      'a read-only transaction',
      `set transaction read only; perform nextval('tms.signals_sent_id_seq');`,
      'DB_READ_ONLY',
    ],
    ['a full disk', `raise 'could not extend file' using errcode = '53100';`, 'DB_FULL'],
    ['an error nobody foresaw', `raise 'surprise' using errcode = 'XX000';`, 'DB_ERROR'],
  ])('that ends in %s fails with a stable code', async (_, body, code) => {
    await define(database, 'contract_version', body)
    const error = await failureOf(driver.call('contract_version', {}))
    expect(error.code).toBe(code)
    // What was sent to a type or a syntax check may be a secret.
    expect(error.message + error.why).not.toContain('rosebud')
    if (code === 'ROLE_DENIED' && body.includes('fence')) {
      expect(error).toMatchObject({ message: 'the fence is up', why: 'since noon', next: ['tms a', 'tms b'] })
    }
  })

  test('into a database without the schema, or with an older one, says to push', async () => {
    const empty = await postgres.createDatabase()
    const absent = await failureOf(using(connectionTo(empty.url), ask))
    expect(absent).toMatchObject({ code: 'SCHEMA_ABSENT', next: expect.arrayContaining(['tms db push']) })
    const older = await failureOf(driver.call('ledger_tail', { limit: 1 }))
    expect(older).toMatchObject({ code: 'SCHEMA_OLDER', next: expect.arrayContaining(['tms db push']) })
    await empty.drop()
  })

  test.each(['a\u0000b', 'a\ud800b'])('with text no database can store is invalid input', async (name) => {
    const error = await failureOf(driver.call('tenants_add', { request_id: randomUUID(), key: 'k', name }))
    expect(error).toMatchObject({ code: 'INPUT_INVALID', exit: 2 })
  })

  test('asks the functions of tms, whatever the search_path of the login holds', async () => {
    await define(database, 'contract_version', says('(select count(*) from pg_catalog.pg_prepared_statements)'))
    await query(
      database.superuserUrl,
      `create schema trap;
       create domain trap.jsonb as pg_catalog.jsonb check (false);
       create domain trap.text as pg_catalog.text check (false);
       create function trap.pg_backend_pid() returns int language sql as 'select 0';
       create role trapped login password 'pw'; grant usage on schema trap to trapped;
       alter role trapped set search_path = trap, pg_catalog`,
    )
    await using(connectionTo(database.urlAs('trapped', 'pw')), async (trapped) => {
      // Prepared the second time: so the session's pid was the true one as well.
      expect([await ask(trapped), await ask(trapped)]).toEqual(['0', '1'])
    })
  })

  test('that was aborted before it began never reaches the database', async () => {
    const reason = new Error('changed my mind')
    const add = { request_id: randomUUID(), key: 'unborn', name: 'Unborn' }
    await expect(driver.call('tenants_add', add, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    expect(await query(database.url, `select 1 from tms.tenants where key = 'unborn'`)).toEqual([])
  })

  test('that is aborted stops waiting at once, and the next one works', async () => {
    await define(database, 'contract_version', `perform pg_sleep(30); ${says('1')}`)
    const abort = new AbortController()
    const reason = new Error('changed my mind')
    const call = driver.call('contract_version', {}, { signal: abort.signal })
    await until('it runs', async () => (await sleeping()) === 1)
    const started = Date.now()
    abort.abort(reason)
    await expect(call).rejects.toBe(reason)
    expect(Date.now() - started).toBeLessThan(8_000)
    await define(database, 'contract_version', says(`'here again'`))
    expect(await ask(driver)).toBe('here again')
  })

  test('waits for a free connection when many are made at once, and all are answered', async () => {
    await define(database, 'contract_version', says('pg_backend_pid()'))
    const pids = await Promise.all(Array.from({ length: 60 }, () => ask(driver)))
    expect(new Set(pids).size).toBeLessThanOrEqual(8)
  })

  test('uses prepared statements from the second on, for they are faster', async () => {
    await using(connectionTo(database.url), async (fresh) => {
      await define(database, 'contract_version', says('(select count(*) from pg_prepared_statements)'))
      expect([await ask(fresh), await ask(fresh), await ask(fresh)]).toEqual(['0', '1', '1'])
    })
  })

  test('goes on working when the function is replaced while it is prepared', async () => {
    await using(connectionTo(database.url), async (fresh) => {
      for (const version of ['one', 'two', 'three']) {
        await query(database.url, 'drop function if exists tms.contract_version(jsonb)')
        await define(database, 'contract_version', says(`'${version}'`))
        expect(await ask(fresh)).toBe(version)
      }
    })
  })
})

describe('a call that takes too long', () => {
  test('is ended by the server, which says so', async () => {
    await define(database, 'contract_version', `perform pg_sleep(30); ${says('1')}`)
    await using(connectionTo(database.url, { callTimeoutMs: 300 }), async (driver) => {
      const error = await failureOf(driver.call('contract_version', {}))
      expect(error).toMatchObject({
        code: 'DB_TIMEOUT',
        exit: 3,
        message: expect.stringContaining('statement timeout'),
      })
    })
    await until('nothing of it is left', async () => (await sleeping()) === 0)
  })

  test('because of a lock is a timeout too', async () => {
    await define(database, 'contract_version', `perform pg_advisory_xact_lock(1); ${says('1')}`)
    await query(database.url, `create role hasty login password 'pw'; alter role hasty set lock_timeout = '100ms'`)
    await using(connectionTo(database.url), async (holder) => {
      await holder.administration?.transaction(async (run) => {
        await run('select pg_advisory_xact_lock(1)')
        const error = await failureOf(using(connectionTo(database.urlAs('hasty', 'pw')), ask))
        expect(error.code).toBe('DB_TIMEOUT')
      })
    })
  })
})

describe('over a wire that fails', () => {
  let wire: Wire
  let url: string
  let driver: Driver
  beforeEach(async () => {
    wire = await startWire(postgres.port)
    url = Object.assign(new URL(database.url), { port: String(wire.port) }).toString()
    driver = await openPostgres(connectionTo(url))
    await define(database, 'contract_version', says(`'yes'`))
  })
  afterEach(async () => {
    await driver.close()
    await wire.stop()
    // Whose wire is dead, the server doesn't know: it would sleep on in the next test.
    await query(
      postgres.superuserUrl,
      `select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'`,
    )
    await until('nobody sleeps', async () => (await sleeping()) === 0)
  })
  const timesApplied = async (id: string): Promise<unknown> =>
    (await query(database.url, 'select times from tms.tenants where request_id = $1', [id]))[0]?.['times']

  test('a call whose answer is lost is asked again with the same request id', async () => {
    const add = { request_id: randomUUID(), key: 'lost', name: 'Lost' }
    wire.loseAnswerTo(add.request_id)
    expect(await driver.call('tenants_add', add)).toMatchObject({ tenant: { key: 'lost' } })
    // Both reached the database, and the database knew that they were one.
    expect(await timesApplied(add.request_id)).toBe(2)
  })

  test('connections cut while idle are replaced without anybody noticing', async () => {
    expect(await ask(driver)).toBe('yes')
    wire.cut()
    expect(await ask(driver)).toBe('yes')
  })

  test('a call goes on trying while the server is away, and ends well when it is back in time', async () => {
    expect(await ask(driver)).toBe('yes')
    await wire.refuse()
    const call = ask(driver)
    const before = wire.accepted()
    await wire.resume()
    expect(await call).toBe('yes')
    expect(wire.accepted()).toBeGreaterThan(before)
  })

  test('a server that stays away ends the call when its time is up', async () => {
    await using(connectionTo(url, { callTimeoutMs: 3_000 }), async (hasty) => {
      expect(await ask(hasty)).toBe('yes')
      await wire.refuse()
      const started = Date.now()
      expect(await failureOf(ask(hasty))).toMatchObject({ code: 'DB_UNREACHABLE' })
      expect(Date.now() - started).toBeLessThan(8_000)
    })
  })

  test('a server that hangs up on every call ends in DB_UNREACHABLE, and not in a hang', async () => {
    // It ends its own session, as an administrator or a crash would.
    await define(database, 'contract_version', `perform pg_terminate_backend(pg_backend_pid()); ${says('1')}`)
    await using(connectionTo(url, { callTimeoutMs: 2_000 }), async (hasty) => {
      const error = await failureOf(ask(hasty))
      expect(error).toMatchObject({ code: 'DB_UNREACHABLE', message: expect.stringContaining('was lost during') })
      // A person who types it again asks for another change: it must not be called safe.
      expect(error).toMatchObject({
        why: expect.stringContaining('look before'),
        next: expect.arrayContaining(['tms ledger tail']),
      })
      expect(wire.accepted()).toBeGreaterThan(1)
    })
  })

  test('a wire that goes dead in the middle of a call ends it a second after its time', async () => {
    await using(connectionTo(url, { callTimeoutMs: 3_000 }), async (hasty) => {
      expect(await ask(hasty)).toBe('yes')
      wire.stall()
      const started = Date.now()
      const error = await failureOf(ask(hasty))
      expect(error).toMatchObject({ code: 'DB_TIMEOUT', message: expect.stringContaining('did not answer') })
      expect(Date.now() - started).toBeLessThan(8_000)
      await wire.resume()
      expect(await ask(hasty)).toBe('yes')
    })
  })

  test('closing does not wait for a call over a dead wire, and the call ends', async () => {
    await define(database, 'contract_version', `perform pg_sleep(30); ${says('1')}`)
    const call = failureOf(ask(driver))
    await until('it runs', async () => (await sleeping()) === 1)
    wire.stall()
    const started = Date.now()
    await driver.close()
    expect(await call).toMatchObject({ code: 'DB_UNREACHABLE' })
    expect(Date.now() - started).toBeLessThan(8_000)
  })

  test('closing waits for a call that is about to end', async () => {
    await define(database, 'contract_version', `perform pg_sleep(0.4); ${says(`'done'`)}`)
    const call = ask(driver)
    await until('it runs', async () => (await sleeping()) === 1)
    await driver.close()
    expect(await call).toBe('done')
  })

  test('a call after closing says that it is closed', async () => {
    expect(await ask(driver)).toBe('yes')
    await driver.close()
    const error = await failureOf(ask(driver))
    expect(error).toMatchObject({ code: 'DB_UNREACHABLE', message: expect.stringContaining('has been closed') })
  })

  test('sessions that an administrator ends in the middle of calls are replaced', async () => {
    await define(database, 'contract_version', `perform pg_sleep(2); ${says(`'yes'`)}`)
    const calls = [ask(driver), ask(driver), ask(driver)]
    await until('they run', async () => (await sleeping()) === 3)
    await query(
      postgres.superuserUrl,
      `select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'`,
    )
    expect(await Promise.all(calls)).toEqual(['yes', 'yes', 'yes'])
  })
})

test.each([
  ['40001', 'a serialization failure'],
  ['40P01', 'a deadlock'],
])('%s, %s, is asked again until it works', async (code) => {
  await query(database.url, 'drop sequence if exists tms.attempts; create sequence tms.attempts')
  await define(
    database,
    'contract_version',
    `if nextval('tms.attempts') < 4 then raise 'again' using errcode = '${code}'; end if; ${says(`currval('tms.attempts')`)}`,
  )
  expect(await using(connectionTo(database.url), ask)).toBe('4')
})

test('an error that will not go away is not asked again', async () => {
  await query(database.url, 'drop sequence if exists tms.attempts; create sequence tms.attempts')
  await define(database, 'contract_version', `perform nextval('tms.attempts'); raise 'no' using errcode = 'TM409';`)
  expect(await failureOf(using(connectionTo(database.url), ask))).toMatchObject({ code: 'CONFLICT' })
  expect(await query(database.url, 'select last_value::int as n from tms.attempts')).toEqual([{ n: 1 }])
})

async function sleeping(): Promise<number> {
  const rows = await query(
    database.superuserUrl,
    `select 1 from pg_stat_activity where datname = '${database.name}' and wait_event = 'PgSleep'`,
  )
  return rows.length
}
