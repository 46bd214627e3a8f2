import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import type { Database, Postgres, Replica } from '../servers/postgres.ts'
import { query, startPostgres, startReplica } from '../servers/postgres.ts'
import { until } from '../servers/process.ts'
import { startWire } from '../servers/wire.ts'
import { connectionTo, createTinySchema, define } from './schema.ts'

let postgres: Postgres
let database: Database
let replica: Replica
beforeAll(async () => {
  postgres = await startPostgres({ own: true })
  database = await postgres.createDatabase()
  await createTinySchema(database)
  replica = await startReplica(postgres)
})
afterAll(async () => {
  await replica.stop()
  await postgres.stop()
})
beforeEach(async () => {
  await define(database, 'tenants_list', tenantNamed(whichServer))
  await caughtUp(replica)
})

/** An answer of tenants_list, whose only tenant's name says what the test wants to know. */
const tenantNamed = (sql: string): string => `return jsonb_build_object('tenants', jsonb_build_array(jsonb_build_object(
  'key', 'k', 'id', gen_random_uuid(), 'name', ${sql}, 'created_at', '2026-11-20T09:30:00.000000Z')));`
const whichServer = `case when pg_is_in_recovery() then 'replica' else 'primary' end`

async function caughtUp(of: Replica): Promise<void> {
  const [row] = await query(postgres.superuserUrl, 'select pg_current_wal_lsn()::text as lsn')
  await until('the replica has caught up', async () => {
    const rows = await query(of.urlOf(database.url), 'select pg_last_wal_replay_lsn() >= $1::pg_lsn as ok', [
      row?.['lsn'],
    ])
    return rows[0]?.['ok'] === true
  })
}

async function open(replicaUrl: string, more = {}): Promise<Driver> {
  const driver = await openPostgres(connectionTo(database.url, { replicaUrl, ...more }))
  onTestFinished(() => driver.close())
  return driver
}

async function whoAnswers(driver: Driver): Promise<string | undefined> {
  const answer = await driver.call('tenants_list', {})
  return 'refused' in answer ? `refused: ${answer.refused.what}` : answer.tenants[0]?.name
}

test('a replica that is up to date answers what may be read there, and nothing else', async () => {
  await define(database, 'contract_version', `return jsonb_build_object('contract', 1, 'server', ${whichServer});`)
  await caughtUp(replica)
  const driver = await open(replica.urlOf(database.url))
  expect(await whoAnswers(driver)).toBe('replica')
  expect(await driver.call('contract_version', {})).toMatchObject({ server: 'primary' })
})

test('a replica is used also when the primary has been idle for longer than the greatest lag', async () => {
  await until('the last commit is old', async () => {
    const age = 'extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float8'
    const [row] = await query<{ age: number }>(replica.urlOf(database.url), `select ${age} as age`)
    return row !== undefined && row.age > 5.5
  })
  await caughtUp(replica)
  expect(await whoAnswers(await open(replica.urlOf(database.url)))).toBe('replica')
})

test('a replica ten minutes behind is not used', async () => {
  const late = await startReplica(postgres, { applyDelay: '10min' })
  onTestFinished(() => late.stop())
  await define(database, 'tenants_list', tenantNamed(`${whichServer} || ' after the change'`))
  const driver = await open(late.urlOf(database.url))
  // A lag below five seconds is fine, so for that long it may answer; it doesn't know of the change then.
  await until('the change is seen', async () => (await whoAnswers(driver)) === 'primary after the change')
  expect(await whoAnswers(driver)).toBe('primary after the change')
})

test('a replica that was cut off from the primary is not used, though it replayed all it received', async () => {
  const wire = await startWire(postgres.port)
  const lonely = await startReplica(postgres, { port: wire.port })
  onTestFinished(async () => {
    await lonely.stop()
    await wire.stop()
  })
  await caughtUp(lonely)
  const driver = await open(lonely.urlOf(database.url))
  expect(await whoAnswers(driver)).toBe('replica')
  // Stalled and not cut: its receiver believes to be connected for a minute more.
  wire.stall()
  await define(database, 'tenants_list', tenantNamed(`${whichServer} || ' after the change'`))
  await until('the change is seen', async () => (await whoAnswers(driver)) === 'primary after the change')
  const received = 'pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()'
  const believes = await query(
    lonely.urlOf(postgres.superuserUrl),
    `select ${received} as all_replayed, status from pg_stat_wal_receiver`,
  )
  expect(believes).toEqual([{ all_replayed: true, status: 'streaming' }])
})

test('a replica of another cluster is not used, however fresh it is', async () => {
  const stranger = await startPostgres({ stranger: true })
  const strangersReplica = await startReplica(stranger)
  onTestFinished(async () => {
    await strangersReplica.stop()
    await stranger.stop()
  })
  // The same names and passwords, so that nothing but the cluster differs.
  const { password } = new URL(database.url)
  await query(stranger.superuserUrl, `create role deployer login password '${password}'`)
  await query(stranger.superuserUrl, `create database ${database.name} owner deployer`)
  const theirs = new URL(database.url)
  theirs.port = String(stranger.port)
  await createTinySchema({ ...database, url: theirs.toString() })
  await until('their replica has it', async () =>
    query(strangersReplica.urlOf(database.url), 'select tms.tenants_list($1)', ['{}']).then(
      () => true,
      () => false,
    ),
  )
  expect(await whoAnswers(await open(strangersReplica.urlOf(database.url)))).toBe('primary')
})

test('the primary itself under the name of a replica is not used as one', async () => {
  expect(await whoAnswers(await open(database.url))).toBe('primary')
})

test('what a replica refuses is asked again on the primary, and its answer counts', async () => {
  const refusal = `jsonb_build_object('refused', jsonb_build_object('code', 'ROLE_DENIED', 'what', 'no', 'why', 'no', 'next', '[]'::jsonb))`
  await define(
    database,
    'tenants_list',
    `if pg_is_in_recovery() then return ${refusal}; end if; ${tenantNamed(whichServer)}`,
  )
  await caughtUp(replica)
  expect(await whoAnswers(await open(replica.urlOf(database.url)))).toBe('primary')
})

test('what cannot be done on a replica is done on the primary', async () => {
  await define(database, 'tenants_list', `perform nextval('tms.signals_sent_id_seq'); ${tenantNamed(whichServer)}`)
  await caughtUp(replica)
  expect(await whoAnswers(await open(replica.urlOf(database.url)))).toBe('primary')
})

test('a replica that is away costs little, is left alone for a while, and used again when it is back', async () => {
  const wire = await startWire(replica.port)
  onTestFinished(() => wire.stop())
  const url = Object.assign(new URL(database.url), { port: String(wire.port) }).toString()
  for (const leave of [wire.refuse, async () => wire.stall()]) {
    await leave()
    const driver = await open(url)
    const started = Date.now()
    for (let i = 0; i < 20; i++) expect(await whoAnswers(driver)).toBe('primary')
    expect(Date.now() - started).toBeLessThan(3_000)
    await wire.resume()
    await until('the replica is used again', async () => (await whoAnswers(driver)) === 'replica')
  }
})

test('a replica that is dead from the start leaves time for the primary too', async () => {
  const wire = await startWire(replica.port)
  onTestFinished(() => wire.stop())
  wire.stall()
  const url = Object.assign(new URL(database.url), { port: String(wire.port) }).toString()
  expect(await whoAnswers(await open(url, { callTimeoutMs: 4_000 }))).toBe('primary')
})

test('a replica that goes dead in the middle of a call leaves time for the primary', async () => {
  const wire = await startWire(replica.port)
  onTestFinished(() => wire.stop())
  const url = Object.assign(new URL(database.url), { port: String(wire.port) }).toString()
  const driver = await open(url, { callTimeoutMs: 8_000 })
  expect(await whoAnswers(driver)).toBe('replica')
  wire.stall()
  const started = Date.now()
  expect(await whoAnswers(driver)).toBe('primary')
  expect(Date.now() - started).toBeLessThan(6_800)
})
