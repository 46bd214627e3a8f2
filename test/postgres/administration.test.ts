import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import type { Database, Postgres } from '../servers/postgres.ts'
import { query, startPostgres } from '../servers/postgres.ts'
import { startWire } from '../servers/wire.ts'
import { connectionTo, failureOf, using } from './schema.ts'

let postgres: Postgres
let database: Database
let driver: Driver
beforeAll(async () => {
  postgres = await startPostgres()
  database = await postgres.createDatabase()
  driver = await openPostgres(connectionTo(database.url, { callTimeoutMs: 2_000 }))
})
afterAll(async () => {
  await driver.close()
  await postgres.stop()
})

const transaction: NonNullable<Driver['administration']>['transaction'] = async (work) => {
  if (!driver.administration) throw new Error('no administration')
  return driver.administration.transaction(work)
}

test('statements of one transaction commit together and give the rows of the last one', async () => {
  const rows = await transaction(async (run) => {
    await run('create table a (x int); create table b (x int); insert into a values (1), (2)')
    await run('insert into b select x + $1 from a', [10])
    return run('select 1; select x from b order by x')
  })
  expect(rows).toEqual([{ x: 11 }, { x: 12 }])
  expect(await query(database.url, 'select x from b order by x')).toEqual([{ x: 11 }, { x: 12 }])
})

test('an error undoes all of it', async () => {
  const error = await failureOf(
    transaction(async (run) => {
      await run('create table undone ()')
      await run('select 1 / 0')
    }),
  )
  expect(error.code).toBe('INPUT_INVALID')
  expect(await query(database.url, `select to_regclass('undone') as t`)).toEqual([{ t: null }])
})

test('what the work throws itself comes back as it is, and undoes all of it too', async () => {
  const reason = new Error('changed my mind')
  const work = transaction(async (run) => {
    await run('create table undone ()')
    throw reason
  })
  await expect(work).rejects.toBe(reason)
  expect(await query(database.url, `select to_regclass('undone') as t`)).toEqual([{ t: null }])
})

test('a migration may take longer than a call', async () => {
  expect(await transaction((run) => run('select pg_sleep(2.5), 1 as x'))).toMatchObject([{ x: 1 }])
})

test('a lock is waited for a minute and not for ever', async () => {
  expect(await transaction((run) => run('show lock_timeout'))).toEqual([{ lock_timeout: '1min' }])
})

test('timestamps and wide integers are text', async () => {
  const rows = await transaction((run) =>
    run(`select timestamptz '2026-11-20 09:30:00.123456+00' as at, date '2026-11-20' as day, 9007199254740993 as n`),
  )
  expect(rows).toEqual([{ at: '2026-11-20 09:30:00.123456+00', day: '2026-11-20', n: '9007199254740993' }])
})

test('a password in a statement does not come back in its error', async () => {
  const error = await failureOf(transaction((run) => run(`alter role deployer password 'Sw0rdf1sh' valid`)))
  const unterminated = await failureOf(transaction((run) => run(`alter role deployer password 'Sw0rdf1sh`)))
  for (const { message, why } of [error, unterminated]) expect(message + why).not.toContain('Sw0rdf1sh')
})

test('a connection lost half way leaves nothing behind', async () => {
  const wire = await startWire(postgres.port)
  const url = Object.assign(new URL(database.url), { port: String(wire.port) }).toString()
  await using(connectionTo(url), async (remote) => {
    const work = remote.administration?.transaction(async (run) => {
      await run('create table half_done ()')
      wire.cut()
      await run('create table other_half ()')
    })
    expect(await failureOf(Promise.resolve(work))).toMatchObject({ code: 'DB_UNREACHABLE' })
  })
  await wire.stop()
  expect(await query(database.url, `select to_regclass('half_done') as t`)).toEqual([{ t: null }])
})
