import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import type { Channel, Driver } from '../../src/drivers/driver.ts'
import { parseAddress } from '../../src/drivers/postgres/address.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import { openEndpoint } from '../../src/drivers/postgres/endpoint.ts'
import { openListener } from '../../src/drivers/postgres/listen.ts'
import type { Database, Postgres } from '../servers/postgres.ts'
import { query, startPostgres } from '../servers/postgres.ts'
import { freePort, until } from '../servers/process.ts'
import type { Wire } from '../servers/wire.ts'
import { startWire } from '../servers/wire.ts'
import { connectionTo, createTinySchema, failureOf, using } from './schema.ts'

let postgres: Postgres
let database: Database
let wire: Wire
let url: string
let driver: Driver
beforeAll(async () => {
  postgres = await startPostgres()
  database = await postgres.createDatabase()
  await createTinySchema(database)
})
afterAll(() => postgres.stop())
beforeEach(async () => {
  wire = await startWire(postgres.port)
  url = Object.assign(new URL(database.url), { port: String(wire.port) }).toString()
  driver = await openPostgres(connectionTo(url))
})
afterEach(async () => {
  await driver.close()
  await wire.stop()
})

const notify = (channel: Channel) => query(database.url, `notify tms_${channel}`)
const listeners = async (): Promise<number> =>
  (
    await query(postgres.superuserUrl, `select 1 from pg_stat_activity where datname = $1 and query like 'unlisten%'`, [
      database.name,
    ])
  ).length

test('a signal arrives at those who listen to its channel, and at nobody else', async () => {
  const heard: Channel[] = []
  await driver.listen('flags', ({ channel }) => heard.push(channel))
  await driver.listen('control', ({ channel }) => heard.push(channel))
  await notify('control')
  await until('the signal', () => heard.length > 0)
  await notify('flags')
  await until('the other signal', () => heard.length > 1)
  expect(heard).toEqual(['control', 'flags'])
  expect(await listeners()).toBe(1)
})

test('after unlistening nothing arrives any more', async () => {
  let mine = 0
  let others = 0
  const stop = await driver.listen('flags', () => mine++)
  await driver.listen('flags', () => others++)
  await stop()
  await notify('flags')
  await until('the other listener has it', () => others === 1)
  expect(mine).toBe(0)
})

test('after a cut it listens again, and gives one signal because something may have been missed', async () => {
  let heard = 0
  await driver.listen('flags', () => heard++)
  await wire.refuse()
  await notify('flags')
  await wire.resume()
  await until('the signal after the reconnect', () => heard > 0)
  expect(heard).toBe(1)
  await notify('flags')
  await until('a signal as usual', () => heard === 2)
})

test('a wire that went dead without a word is noticed by the heartbeat', async () => {
  const times = { connectMs: 3_000, callMs: 5_000 }
  const endpoint = openEndpoint(parseAddress(url), times)
  const listener = await openListener(endpoint, { ...times, heartbeatMs: 100 })
  let heard = 0
  listener?.on('flags', () => heard++)
  wire.stall()
  await notify('flags')
  const before = wire.accepted()
  await until('it tries to connect again', () => wire.accepted() > before)
  await wire.resume()
  await until('the signal after the reconnect', () => heard > 0)
  await listener?.close()
  await endpoint.close()
})

test('where a notification from another connection does not arrive, it does not pretend to listen', async () => {
  const times = { connectMs: 5_000, callMs: 5_000 }
  const endpoint = openEndpoint(parseAddress(url), times)
  // As a pooler that passes the server's pid on: only the round trip can find it out.
  expect(await openListener({ ...endpoint, ask: async () => undefined }, times)).toBeUndefined()
  await endpoint.close()
})

test('listening to a server that is not there fails as a call does', async () => {
  await using(connectionTo(`postgres://vera@127.0.0.1:${await freePort()}/fleet`), async (nowhere) => {
    expect(await failureOf(nowhere.listen('flags', () => undefined))).toMatchObject({ code: 'DB_UNREACHABLE' })
  })
})

test('closing the driver ends the listening session', async () => {
  await driver.listen('flags', () => undefined)
  expect(await listeners()).toBe(1)
  await driver.close()
  await until('the session is gone', async () => (await listeners()) === 0)
})
