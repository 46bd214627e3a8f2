import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { readSqlFiles } from '../../src/db/files.ts'
import { push } from '../../src/db/schema.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { sqlFolder } from '../servers/schema.ts'
import { policy } from '../fleet/fleet.ts'
import { query, startPostgres, type Postgres } from '../servers/postgres.ts'
import { json, surroundings } from './run.ts'

/** A stop that isn't one yet: needs a second session that is committing, so a real server. */

let server: Postgres
let driver: Driver
let folder: string
let restore: () => void

beforeAll(async () => {
  server = await startPostgres()
  const { url } = await server.createDatabase()
  driver = await openPostgres({ driver: 'postgres', url, connectTimeoutMs: 10_000, callTimeoutMs: 20_000 })
  await push(driver, await readSqlFiles(sqlFolder))
  await query(url, `select tms._bootstrap('postgres', session_user::text, 'operator@example.com')`)
  granted(await driver.call('agents_policies_load', { request_id: randomUUID(), policies: [policy('rates')] }))
  folder = await mkdtemp(join(tmpdir(), 'tms-fleet-settling-'))
  restore = surroundings(folder, { DATABASE_URL: url })
})
afterAll(async () => {
  restore()
  await driver.close()
  await server.stop()
  await rm(folder, { recursive: true, force: true })
})

test('while something still commits the pause stands, the session is named, and the exit code is 3', async () => {
  const answer = await driver.administration?.transaction(async (run) => {
    await run('set local role tms_owner')
    const [mine] = await run('select pg_backend_pid() as pid')
    await run('lock table tms.fence_gate in row share mode')
    return { pid: Number(mine?.['pid']), paused: await json('agents pause', 'rates', '--why', 'the test says so') }
  })
  expect(answer?.paused).toMatchObject({
    code: 3,
    ok: false,
    data: { after: 'paused', settled: false, survivors: [`the database session ${answer?.pid}`] },
    error: { code: 'DB_BUSY', next: ['tms agents pause rates --why "look again"', 'tms agents status'] },
  })
  const again = await json('agents pause', 'rates', '--why', 'look again')
  expect(again).toMatchObject({ code: 0, data: { before: 'paused', settled: true, survivors: [] } })
})
