import { randomBytes, randomUUID } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { openEmbedded } from '../../src/drivers/embedded/driver.ts'
import { DurableFs } from '../../src/drivers/embedded/durable-fs.ts'
import { openSession, type Session } from '../../src/drivers/embedded/session.ts'
import { until } from '../servers/process.ts'
import { bundle, connectionTo, type Bundle } from './bundle.ts'

let built: Bundle
const toClose: (() => Promise<void>)[] = []
beforeAll(async () => {
  built = await bundle()
  await built.database()
})
afterEach(async () => {
  for (const close of toClose.splice(0).reverse()) await close()
})
afterAll(() => built.remove())

const add = (name = 'n') => ({ request_id: randomUUID(), key: 'k', name })

/** The session as the worker thread has it, in this process, so that its file system can be watched. */
async function session(): Promise<{ session: Session; fs: DurableFs }> {
  const fs = new DurableFs(join(await built.database(), 'db'))
  const opened = await openSession({ fs, localUser: 'me', onSignal: () => undefined })
  toClose.push(() => opened.close(0))
  return { session: opened, fs }
}

async function opened(directory: string): Promise<Driver> {
  const driver = await openEmbedded(connectionTo(directory), built.internals)
  toClose.push(() => driver.close())
  return driver
}

async function sql(driver: Driver, text: string): Promise<Record<string, unknown>> {
  const rows = await driver.administration?.transaction((run) => run(text))
  return rows?.[0] ?? {}
}

describe('power loss', () => {
  test('every change is on the disk before it is answered, and reading costs no disk', async () => {
    const { session: s, fs } = await session()
    for (let i = 0; i < 5; i++) {
      const before = fs.syncs
      await s.call('tenants_add', JSON.stringify(add()))
      expect(fs.syncs).toBeGreaterThan(before)
    }
    const before = fs.syncs
    await s.call('tenants_list', '{}')
    expect(fs.syncs).toBe(before)
  })

  test('a checkpoint syncs the tables and the folders that hold them', async () => {
    const { session: s, fs } = await session()
    await s.call('tenants_add', JSON.stringify(add()))
    const before = fs.syncs
    await s.beginAdministration()
    await s.run('create table public.new ()', undefined)
    await s.endAdministration('commit')
    toClose.pop()
    await s.close(0)
    expect(fs.syncs - before).toBeGreaterThan(5)
  })

  test('the settings that say so are in force', async () => {
    const { session: s } = await session()
    await s.beginAdministration()
    const rows = await s.run(
      `select current_setting('fsync') as fsync, current_setting('wal_sync_method') as method,
              current_setting('full_page_writes') as pages, current_setting('synchronous_commit') as commit`,
      undefined,
    )
    await s.endAdministration('commit')
    expect(rows).toEqual([{ fsync: 'on', method: 'fsync', pages: 'on', commit: 'on' }])
  })
})

describe('upkeep', () => {
  const walFiles = (directory: string) =>
    readdirSync(join(directory, 'db/pg_wal')).filter((name) => /^[0-9A-F]{24}$/.test(name))

  test('the log stays small over many large changes, without anybody being idle', async () => {
    const directory = await built.database()
    const driver = await opened(directory)
    const before = await sql(driver, 'select pg_current_wal_insert_lsn() as at')
    let most = 0
    for (let i = 0; i < 300; i++) {
      // Random, so that Postgres can't compress it.
      await driver.call('tenants_add', add(randomBytes(200_000).toString('hex')))
      if (i % 10 === 0) most = Math.max(most, walFiles(directory).length)
    }
    const { bytes } = await sql(
      driver,
      `select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '${String(before['at'])}')::float8 as bytes`,
    )
    expect(bytes).toBeGreaterThan(118e6)
    // 16 MB each: as much again as is written between two checkpoints, and one in reserve.
    expect(most).toBeLessThanOrEqual(7)
  })

  test('dead rows are vacuumed away while calls go on', async () => {
    const driver = await opened(await built.database())
    await sql(
      driver,
      `create table public.busy as select i, repeat('x', 200) as text from generate_series(1, 20000) i; select 1`,
    )
    const size = async () =>
      Number((await sql(driver, `select pg_relation_size('public.busy')::float8 as bytes`))['bytes'])
    const first = await size()
    // Without a vacuum each round adds the size of the table again.
    for (let round = 0; round < 15; round++) {
      await sql(driver, 'update public.busy set i = i + 1; select 1')
      await driver.call('tenants_add', add())
    }
    await until(
      'a vacuum',
      async () =>
        (await sql(driver, `select relallvisible > 0 as done from pg_class where relname = 'busy'`))['done'] === true,
    )
    for (let round = 0; round < 10; round++) await sql(driver, 'update public.busy set i = i + 1; select 1')
    expect(await size()).toBeLessThan(first * 16)
  })

  test('commands too short for it do a part of it when they end', async () => {
    const directory = await built.database()
    const command = async (text: string, tidyMs: number) => {
      const fs = new DurableFs(join(directory, 'db'))
      const short = await openSession({ fs, localUser: 'me', onSignal: () => undefined })
      await short.beginAdministration()
      const rows = await short.run(text, undefined)
      await short.endAdministration('commit')
      await short.close(tidyMs)
      return rows[0]
    }
    const vacuumed = `select relallvisible > 0 as done from pg_class where relname = 'filler'`
    await command(
      `create table public.filler as select repeat(md5(i::text), 60) as text from generate_series(1, 40000) i; ${vacuumed}`,
      0,
    )
    expect(await command(vacuumed, 0)).toEqual({ done: false })
    await until('a vacuum', async () => (await command(vacuumed, 200))?.['done'] === true, 600_000)
  })
})
