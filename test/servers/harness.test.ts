import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { query, startPostgres, startReplica } from './postgres.ts'
import type { Database, Postgres } from './postgres.ts'
import { signToken, startPostgrest } from './postgrest.ts'
import type { Postgrest } from './postgrest.ts'
import { until } from './process.ts'

let postgres: Postgres
let database: Database
beforeAll(async () => {
  postgres = await startPostgres({ own: true })
  database = await postgres.createDatabase()
})
afterAll(() => postgres.stop())

test('a fresh database belongs to a login that may create roles and is no superuser', async () => {
  const rows = await query(
    database.url,
    `select rolname, rolsuper, rolcreaterole, rolbypassrls, pg_catalog.pg_get_userbyid(datdba) as owner
     from pg_roles, pg_database where rolname = current_user and datname = current_database()`,
  )
  expect(rows).toEqual([
    { rolname: 'deployer', rolsuper: false, rolcreaterole: true, rolbypassrls: false, owner: 'deployer' },
  ])
})

test('text sorts by language here, so that code relying on bytewise order is caught', async () => {
  expect(await query(database.url, "select 'a' < 'B' as by_language")).toEqual([{ by_language: true }])
})

test('a dropped database is gone although somebody is connected', async () => {
  const other = await postgres.createDatabase()
  const open = query(other.url, 'select pg_sleep(60)').catch(
    (error: unknown) => error instanceof pg.DatabaseError && error.code,
  )
  await until('the session runs', async () => {
    const rows = await query(
      postgres.superuserUrl,
      "select 1 from pg_stat_activity where query like '%pg_sleep(60)'  and datname = $1",
      [other.name],
    )
    return rows.length === 1
  })
  await other.drop()
  expect(await open).toBe('57P01')
  expect(await query(postgres.superuserUrl, 'select 1 from pg_database where datname = $1', [other.name])).toEqual([])
})

test('a replica shows what the primary committed and writes nothing', async () => {
  await query(database.url, 'create table mirrored as select 41 + 1 as x')
  const replica = await startReplica(postgres)
  try {
    const url = replica.urlOf(database.url)
    await until(
      'the row arrives',
      async () => (await query(url, "select to_regclass('mirrored') as t"))[0]?.['t'] !== null,
    )
    expect(await query(url, 'select x from mirrored')).toEqual([{ x: 42 }])
    await expect(query(url, 'insert into mirrored values (1)')).rejects.toMatchObject({ code: '25006' })
  } finally {
    await replica.stop()
  }
})

test('a test process killed with -9 leaves neither a server nor a folder', async () => {
  // In a vitest of its own, because that is what gets killed in real life.
  const start = `import { startVitest } from 'vitest/node'
    await startVitest('test', [], { config: false, watch: false, include: ['test/servers/left-behind.ts'] })`
  const child = spawn(process.execPath, ['--input-type=module', '-e', start], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  await until('the server is up', () => output.includes('RUNNING'))
  const [, worker, port, folder = ''] = /RUNNING (\d+) (\d+) (\S+)/.exec(output) ?? []
  const url = `postgres://nobody:wrong@127.0.0.1:${port}/postgres`
  expect(existsSync(folder)).toBe(true)
  await expect(query(url, 'select 1')).rejects.toMatchObject({ code: '28P01' })

  process.kill(Number(worker), 'SIGKILL')
  child.kill('SIGKILL')

  await until('the folder is gone', () => !existsSync(folder))
  await expect(query(url, 'select 1')).rejects.toMatchObject({ code: 'ECONNREFUSED' })
})

describe('PostgREST', () => {
  let postgrest: Postgrest
  beforeAll(async () => {
    await query(
      database.url,
      `create schema tms;
       create function tms.whoami(args jsonb) returns jsonb language sql as
         $$ select jsonb_build_object('role', current_user, 'sub', current_setting('request.jwt.claims', true)::jsonb ->> 'sub') $$`,
    )
    postgrest = await startPostgrest(database)
    await query(database.url, 'grant usage on schema tms to anon, authenticated')
  })
  afterAll(() => postgrest.stop())

  const whoami = async (token: string): Promise<unknown> => {
    const answer = await fetch(`${postgrest.url}/rest/v1/rpc/whoami`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'content-profile': 'tms', authorization: `Bearer ${token}` },
      body: '{"args":{}}',
    })
    return answer.ok ? answer.json() : answer.status
  }

  test('knows a person by a token signed with its secret', async () => {
    expect(await whoami(postgrest.tokenFor('vera'))).toEqual({ role: 'authenticated', sub: 'vera' })
  })

  test('rejects a token signed with another key, or with none', async () => {
    const claims = { role: 'service_role', sub: 'vera' }
    expect(await whoami(signToken(claims, { secret: 'x'.repeat(43) }))).toBe(401)
    expect(await whoami(signToken(claims, { secret: postgrest.secret, alg: 'none' }))).toBe(401)
  })
})
