import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { exportForSupabase } from '../../src/db/export.ts'
import { readSqlFiles, shippedFunctions, type SqlFile, type SqlFiles } from '../../src/db/files.ts'
import { checkContract, push, resetSchema, schemaStatus } from '../../src/db/schema.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { sqlFolder } from '../servers/schema.ts'
import { query, startPostgres, tool, type Database, type Postgres } from '../servers/postgres.ts'
import { createApiRoles } from '../servers/postgrest.ts'

let server: Postgres
let files: SqlFiles
beforeAll(async () => {
  server = await startPostgres()
  files = await readSqlFiles(sqlFolder)
})
afterAll(() => server.stop())

const open = (url: string) => openPostgres({ driver: 'postgres', url, connectTimeoutMs: 10_000, callTimeoutMs: 20_000 })

async function withDriver<T>(url: string, work: (driver: Driver) => Promise<T>): Promise<T> {
  const driver = await open(url)
  try {
    return await work(driver)
  } finally {
    await driver.close()
  }
}

function file(name: string, text: string, kind: SqlFile['kind'] = 'migration'): SqlFile {
  return { kind, name, text, sha256: createHash('sha256').update(text).digest('hex') }
}

const bootstrap = (database: Database) =>
  query(database.url, `select tms._bootstrap('postgres', session_user::text, 'operator@example.com')`)

describe('pushing the schema', () => {
  test('needs no superuser, and the second time does nothing', async () => {
    const database = await server.createDatabase()
    await withDriver(database.url, async (driver) => {
      expect((await push(driver, files)).migrations).toEqual(files.migrations.map(({ name }) => name))
      expect(await push(driver, files)).toEqual({ migrations: [], functions: [] })
      await bootstrap(database)
      expect((await schemaStatus(driver, files)).upToDate).toBe(true)
    })
  })

  test('by ten at once applies each file once', async () => {
    const database = await server.createDatabase()
    const reports = await Promise.all(
      Array.from({ length: 10 }, () => withDriver(database.url, (driver) => push(driver, files))),
    )
    expect(reports.flatMap(({ migrations }) => migrations)).toEqual(files.migrations.map(({ name }) => name))
    expect(reports.flatMap(({ functions }) => functions)).toHaveLength(files.functions.length)
  })

  test('into several databases of one server at once works, although they share their roles', async () => {
    const databases = await Promise.all(Array.from({ length: 4 }, () => server.createDatabase()))
    await Promise.all(databases.map(({ url }) => withDriver(url, (driver) => push(driver, files))))
    for (const { superuserUrl } of databases) {
      expect(await query(superuserUrl, `select count(*)::int as n from tms.schema_files`)).toEqual([
        { n: files.migrations.length + files.functions.length },
      ])
    }
  })

  test('refuses a migration that was edited after it was applied, by name, and applies nothing', async () => {
    const database = await server.createDatabase()
    await withDriver(database.url, async (driver) => {
      await push(driver, files)
      const [first, ...others] = files.migrations
      const edited = {
        ...files,
        migrations: [
          file(first?.name ?? '', `${first?.text ?? ''}\n-- edited`),
          ...others,
          file('0099_new.sql', 'create table tms.never ()'),
        ],
      }
      await expect(push(driver, edited)).rejects.toMatchObject({
        code: 'MIGRATION_CHANGED',
        message: expect.stringContaining(first?.name ?? '?'),
      })
      expect(await query(database.superuserUrl, `select to_regclass('tms.never') as t`)).toEqual([{ t: null }])
    })
  })

  test('that fails in the middle leaves nothing behind', async () => {
    const database = await server.createDatabase()
    const broken = {
      ...files,
      functions: [...files.functions, file('99_broken.sql', 'create table tms.half (); select 1/0', 'function')],
    }
    await withDriver(database.url, async (driver) => {
      await expect(push(driver, broken)).rejects.toMatchObject({ exit: expect.any(Number) })
      expect(await query(database.superuserUrl, `select to_regnamespace('tms') as s`)).toEqual([{ s: null }])
      await push(driver, files)
    })
  })

  test('changes a function file in place and keeps the data', async () => {
    const database = await server.createDatabase()
    await withDriver(database.url, async (driver) => {
      await push(driver, files)
      await bootstrap(database)
      const later = {
        ...files,
        functions: files.functions.map((f) =>
          f.name === '50_ledger.sql' ? file(f.name, `${f.text}\n-- later`, 'function') : f,
        ),
      }
      expect(await push(driver, later)).toEqual({ migrations: [], functions: ['50_ledger.sql'] })
      granted(await driver.call('whoami', {}))
    })
  })

  test('refuses a later migration by a login that row security would show nothing', async () => {
    const database = await server.createDatabase()
    await withDriver(database.url, async (driver) => {
      await push(driver, files)
      const later = {
        ...files,
        migrations: [
          ...files.migrations,
          file('0002_later.sql', 'create table tms.later (); alter table tms.later enable row level security'),
        ],
      }
      await expect(push(driver, later)).rejects.toMatchObject({ code: 'ROLE_DENIED' })
      await bootstrap(database)
      expect((await push(driver, later)).migrations).toEqual(['0002_later.sql'])
    })
  })

  test("leaves a schema of that name that is somebody else's alone", async () => {
    const database = await server.createDatabase()
    await query(database.url, 'create schema tms; create table tms.theirs (x int)')
    await withDriver(database.url, async (driver) => {
      await expect(push(driver, files)).rejects.toMatchObject({ code: 'CONFLICT' })
    })
  })
})

describe('the schema itself', () => {
  let database: Database
  beforeAll(async () => {
    database = await server.createDatabase()
    await withDriver(database.url, (driver) => push(driver, files))
    await bootstrap(database)
  })
  const rows = (sql: string) => query(database.superuserUrl, sql)

  // A partition has no policy of its own: nobody reaches its rows but through the parent, where the parent's hold.
  const unprotected = `select relname::text as name from pg_class where relnamespace = 'tms'::regnamespace and relkind in ('r', 'p')
    and (not relrowsecurity or not relforcerowsecurity
      or (not relispartition and not exists (select from pg_policy where polrelid = pg_class.oid)))`

  test('has row security on every table, forced for the owner', async () => {
    expect(
      await rows(`select count(*)::int as n from pg_class where relnamespace = 'tms'::regnamespace and relkind = 'r'`),
    ).not.toEqual([{ n: 0 }])
    expect(await rows(unprotected)).toEqual([])
    // one table without it is found: the list can be other than empty
    await rows('create table tms.bare ()')
    expect(await rows(unprotected)).toEqual([{ name: 'bare' }])
    await rows('drop table tms.bare')
  })

  test('has no view, and grants no table to anybody', async () => {
    expect(
      await rows(`select relname from pg_class where relnamespace = 'tms'::regnamespace and relkind in ('v', 'm')`),
    ).toEqual([])
    expect(
      await rows(
        `select relname from pg_class c, aclexplode(c.relacl) a where relnamespace = 'tms'::regnamespace and a.grantee <> c.relowner`,
      ),
    ).toEqual([])
  })

  test("lets nobody call what is not granted, and pins the search path of what runs with the owner's rights", async () => {
    expect(
      await rows(
        `select proname::text as name from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where pronamespace = 'tms'::regnamespace and a.grantee = 0 order by 1`,
      ),
      // Both are for the owners of users' tables: a trigger's function, and what makes the trigger with its caller's rights.
    ).toEqual([{ name: 'fence_guard' }, { name: 'guard_table' }])
    expect(await rows(`select prosecdef as definer from pg_proc where oid = 'tms.guard_table'::regproc`)).toEqual([
      { definer: false },
    ])
    expect(
      await rows(
        `select proname from pg_proc where pronamespace = 'tms'::regnamespace and prosecdef and not coalesce(array_to_string(proconfig, ',') like '%search_path=pg_catalog, pg_temp%', false)`,
      ),
    ).toEqual([])
  })

  test('accepts nothing but inserts in ledger and history, from a superuser and under replica too', async () => {
    for (const table of ['ledger_inbox', 'feature_flags_history']) {
      for (const statement of [
        `update tms.${table} set who = 'x'`,
        `delete from tms.${table}`,
        `truncate tms.${table}`,
      ]) {
        await expect(rows(statement), statement).rejects.toMatchObject({ code: 'TM403' })
        await expect(rows(`set session_replication_role = replica; ${statement}`), statement).rejects.toMatchObject({
          code: 'TM403',
        })
      }
    }
  })

  test('has the body of every function in the files, so that doctor can compare them', async () => {
    const found = await rows(
      `select proname::text as name, encode(sha256(convert_to(prosrc, 'UTF8')), 'hex') as sum from pg_proc where pronamespace = 'tms'::regnamespace order by 1`,
    )
    expect(Object.fromEntries(found.map(({ name, sum }) => [name, sum]))).toEqual(
      Object.fromEntries([...shippedFunctions(files)].sort()),
    )
  })

  test('is laid anew by a reset, but not in production', async () => {
    await withDriver(database.url, async (driver) => {
      await rows(`insert into tms.environment (name) values ('production')`)
      await expect(resetSchema(driver, files)).rejects.toMatchObject({ code: 'ENVIRONMENT_DENIED' })
      await rows(`update tms.environment set name = 'staging' where one`)
      expect((await resetSchema(driver, files)).migrations).toHaveLength(files.migrations.length)
      expect(await rows("select count(*)::int as n from tms.memberships where role = 'super_admin'")).toEqual([
        { n: 0 },
      ])
    })
  })
})

describe('a release and a database of different versions', () => {
  let database: Database
  beforeAll(async () => {
    database = await server.createDatabase()
    await withDriver(database.url, (driver) => push(driver, files))
  })
  const speak = (version: number) =>
    query(
      database.superuserUrl,
      `create or replace function tms.contract_version(args jsonb) returns jsonb language sql stable as $$ select jsonb_build_object('contract', ${version}, 'server', '15') $$`,
    )

  test.each([
    [1, null],
    [2, expect.stringContaining('newer')],
    [0, expect.stringContaining('older')],
  ])('work together at contract %i', async (version, said) => {
    await speak(version)
    await withDriver(database.url, async (driver) => expect(await checkContract(driver)).toEqual(said))
  })

  test.each([
    [3, 'SCHEMA_NEWER'],
    [-1, 'SCHEMA_OLDER'],
  ])('do not at contract %i, and say what to type', async (version, code) => {
    await speak(version)
    await withDriver(database.url, async (driver) => {
      await expect(checkContract(driver)).rejects.toMatchObject({
        code,
        next: expect.arrayContaining(['tms db status']),
      })
    })
  })

  test('say what to type when there is no schema', async () => {
    const empty = await server.createDatabase()
    await withDriver(empty.url, async (driver) => {
      await expect(checkContract(driver)).rejects.toMatchObject({
        code: 'SCHEMA_ABSENT',
        exit: 3,
        next: expect.arrayContaining([expect.stringMatching(/^tms (db push|init)/)]),
      })
      expect((await schemaStatus(driver, files)).present).toBe(false)
    })
  })
})

describe('the export for Supabase', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tms-export-'))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))
  const now = new Date('2026-11-20T10:00:00Z')

  test('is applied by plain psql as a non-superuser, in the order of its names', async () => {
    const psql = tool(server, 'psql')
    if (psql === undefined)
      process.stderr.write('psql is not installed here, so the files are applied one by one through pg\n')
    const database = await server.createDatabase()
    await createApiRoles(database)
    const { written } = await exportForSupabase(files, folder, now)
    expect(written).toHaveLength(files.migrations.length + files.functions.length)
    expect([...written].sort()).toEqual(written)
    for (const name of (await readdir(folder)).sort()) {
      if (psql === undefined) {
        await query(database.url, await readFile(join(folder, name), 'utf8'))
        continue
      }
      const { status, stderr } = spawnSync(
        psql,
        ['-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', join(folder, name), database.url],
        { encoding: 'utf8' },
      )
      expect([status, stderr]).toEqual([0, ''])
    }
    await bootstrap(database)
    await withDriver(database.url, async (driver) => {
      expect((await schemaStatus(driver, files)).upToDate).toBe(true)
      expect(await push(driver, files)).toEqual({ migrations: [], functions: [] })
    })
    const [usage] = await query(
      database.superuserUrl,
      `select has_function_privilege('authenticated', 'tms.whoami(jsonb)', 'execute') as may, has_function_privilege('anon', 'tms.whoami(jsonb)', 'execute') as anon`,
    )
    expect(usage).toEqual({ may: true, anon: false })
  })

  test('only appends: nothing the second time, and one file after one change', async () => {
    const before = await readdir(folder)
    expect((await exportForSupabase(files, folder, now)).written).toEqual([])
    const changed = {
      ...files,
      functions: files.functions.map((f) =>
        f.name === '50_ledger.sql' ? file(f.name, `${f.text}\n-- later`, 'function') : f,
      ),
    }
    const { written } = await exportForSupabase(changed, folder, now)
    expect(written).toHaveLength(1)
    expect((await readdir(folder)).sort()).toEqual([...before, ...written].sort())
    expect(written[0]?.localeCompare([...before].sort().at(-1) ?? '')).toBe(1)
    await expect(
      exportForSupabase(
        { ...files, migrations: files.migrations.map((f) => file(f.name, `${f.text}--`)) },
        folder,
        now,
      ),
    ).rejects.toMatchObject({ code: 'MIGRATION_CHANGED' })
  })

  test('comes after migrations that are there already, whatever the clock says', async () => {
    const theirs = await mkdtemp(join(tmpdir(), `tms-export-${randomBytes(2).toString('hex')}`))
    await writeFile(join(theirs, '20991231235959_theirs.sql'), 'select 1;')
    const { written } = await exportForSupabase(files, theirs, now)
    expect(written.every((name) => name > '20991231235959_theirs.sql')).toBe(true)
    await rm(theirs, { recursive: true })
  })
})
