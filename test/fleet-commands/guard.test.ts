import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import { guardTable } from '../../src/guard/guard.ts'
import { embeddedSubject } from '../contract/subjects.ts'
import { query, type Database } from '../servers/postgres.ts'
import { startSchema } from '../servers/schema.ts'
import { json, surroundings, tms } from './run.ts'

/** `tms guard`: on Postgres, where a command costs a fraction of opening the embedded database; what it does there is the last test. */

let database: Database
let stop: () => Promise<void>
const sql = (text: string) => query(database.url, text)
const open = () =>
  openPostgres({ driver: 'postgres', url: database.url, connectTimeoutMs: 10_000, callTimeoutMs: 20_000 })

describe('the guard', () => {
  beforeAll(async () => {
    const schema = await startSchema()
    database = schema.database
    await sql(`select tms._bootstrap('postgres', session_user::text, 'operator@example.com')`)
    const folder = await mkdtemp(join(tmpdir(), 'tms-guard-'))
    const restore = surroundings(folder, { DATABASE_URL: database.url })
    stop = async () => {
      restore()
      await schema.server.stop()
      await rm(folder, { recursive: true, force: true })
    }
    await sql('create table public.orders (id int)')
    await sql('create table public."Odd ""Name" (id int)')
    await sql('create table public.parts (day date) partition by range (day)')
    await sql(`create table public.parts_1 partition of public.parts for values from ('2027-01-01') to ('2027-02-01')`)
  })

  afterAll(() => stop())

  test('nothing guarded is unknown, not fine: exit 3', async () => {
    expect((await tms('guard list')).out).toContain('tms guard add <table>')
    const { code, error } = await json('guard check')
    expect([code, error?.code]).toEqual([3, 'NO_DATA'])
  })

  test('add guards a table and its partitions; check says so; a second time changes nothing', async () => {
    expect((await json('guard add', 'orders')).data).toMatchObject({ table: 'orders', tables: 1 })
    expect((await json('guard add', 'public.parts')).data).toMatchObject({ tables: 2 })
    expect((await tms('guard add', 'public.parts')).code).toBe(0)
    const { code, out } = await tms('guard check')
    expect([code, out]).toEqual([0, expect.stringMatching(/public\.orders +public\.orders +guarded/)])
  })

  test('a partition that was made afterwards is found: exit 1, and the command that mends it', async () => {
    await sql(`create table public.parts_2 partition of public.parts for values from ('2027-02-01') to ('2027-03-01')`)
    const { code, out } = await tms('guard check')
    expect([code, out]).toEqual([1, expect.stringMatching(/parts_2 +\S+ +NOT guarded[^]*tms guard add public\.parts/)])
    expect((await tms('guard add', 'public.parts')).out).toContain('in 3 parts')
    await sql('alter table public.orders disable trigger tms_fence')
    expect((await json('guard check')).code).toBe(1)
    expect((await tms('guard add', 'public.orders')).code).toBe(0)
    expect((await tms('guard check')).code).toBe(0)
  })

  test('what inherits from a table is guarded with it, and found when it was made afterwards', async () => {
    await sql('create table public.papers (id int)')
    await sql('create table public.papers_old () inherits (public.papers)')
    await sql('create table public.papers_oldest () inherits (public.papers_old)')
    expect((await json('guard add', 'public.papers')).data).toMatchObject({ tables: 3 })
    await sql('create table public.papers_new () inherits (public.papers_old)')
    const { code, out } = await tms('guard check')
    expect([code, out]).toEqual([1, expect.stringMatching(/papers_new +public\.papers +NOT guarded/)])
    expect(out.match(/public\.papers_oldest/g)).toHaveLength(1)
    expect((await json('guard add', 'public.papers')).data).toMatchObject({ tables: 4 })
    expect((await tms('guard check')).code).toBe(0)
  })

  test.each([
    [
      'never',
      'before insert or update or delete on public.orders for each statement when (false) execute function tms.fence_guard()',
    ],
    [
      'for one column',
      'before insert or delete or update of id on public.orders for each statement execute function tms.fence_guard()',
    ],
    ['for other rows', 'before insert on public.orders for each row execute function tms.fence_guard()'],
    [
      'something else',
      'before insert or update or delete on public.orders for each statement execute function public.nothing()',
    ],
  ])('a trigger of the name that does %s is found and replaced', async (_, trigger) => {
    await sql(
      'create or replace function public.nothing() returns trigger language plpgsql as $$ begin return null; end $$',
    )
    await sql('drop trigger tms_fence on public.orders')
    await sql(`create trigger tms_fence ${trigger}`)
    await sql('alter table public.orders enable always trigger tms_fence')
    const { code, out } = await tms('guard check')
    expect([code, out]).toEqual([1, expect.stringMatching(/public\.orders +\S+ +INCOMPLETE/)])
    expect((await tms('guard add', 'public.orders')).code).toBe(0)
    expect((await tms('guard check')).code).toBe(0)
  })

  test.each([
    ['disable', 'fence_writes'],
    ['enable', 'safe_writes'],
  ])('without the check at the commit (%s trigger on %s) no guard is called one', async (how, table) => {
    await sql(`set role tms_owner; alter table tms.${table} ${how} trigger at_commit`)
    try {
      const { code, out } = await tms('guard check')
      expect([code, out]).toEqual([
        1,
        expect.stringMatching(/public\.orders +\S+ +NOT checked at the commit[^]*tms doctor/),
      ])
      expect((await tms('doctor')).out).toContain('enable always trigger at_commit')
    } finally {
      await sql(`set role tms_owner; alter table tms.${table} enable always trigger at_commit`)
    }
    expect((await tms('guard check')).code).toBe(0)
  })

  test('a name is data: quotes in it belong to it', async () => {
    expect((await json('guard add', 'public."Odd ""Name"')).data).toMatchObject({ tables: 1 })
    for (const name of [`orders'; drop table public.orders; --`, '"orders', '1', 'a.b.c', '']) {
      expect((await json('guard add', name)).error?.code, name).toBe('INPUT_INVALID')
    }
  })

  test('a table that is not there is named, and what may be meant', async () => {
    const missing = await json('guard add', 'nosuch')
    expect([missing.code, missing.error]).toEqual([
      2,
      expect.objectContaining({ code: 'NOT_FOUND', next: ['tms guard add public.nosuch', 'tms guard list'] }),
    ])
    expect((await json('guard add', 'public.Nosuch')).error?.next[0]).toBe(`tms guard add '"public"."Nosuch"'`)
    expect((await json('guard add', 'tms.halts')).error?.code).toBe('INPUT_INVALID')
  })

  test('a connection without SQL is told what to paste', async () => {
    const whole = await open()
    const driver: Driver = {
      target: whole.target,
      call: (fn, args, options) => whole.call(fn, args, options),
      listen: (channel, onSignal) => whole.listen(channel, onSignal),
      close: () => whole.close(),
    }
    await expect(guardTable(driver, `public."O'Neil"`)).rejects.toMatchObject({
      code: 'NO_SQL',
      next: [`select tms.guard_table('public."O''Neil"'::regclass);`],
    })
    await whole.close()
  })
})

test('on the embedded database: guarded, found again, and written to by nobody in safe mode', async () => {
  const subject = await embeddedSubject()
  const operator = await subject.operator()
  const folder = await mkdtemp(join(tmpdir(), 'tms-guard-'))
  const restore = surroundings(folder)
  const run = (text: string) => operator.administration?.transaction((statement) => statement(text))
  try {
    await writeFile(
      join(folder, 'tms.config.yaml'),
      `driver: embedded\ndirectory: ${operator.target.name.replace('embedded ', '')}\n`,
    )
    await run('create table public.orders (id int)')
    await operator.close()
    expect((await json('guard add', 'orders')).data).toMatchObject({ table: 'orders', tables: 1 })
    expect((await tms('guard check')).code).toBe(0)
    await subject.sql('insert into public.orders values (1)')
    expect((await tms('incident safe-mode on', '--why', 'the test says so')).code).toBe(0)
    await expect(subject.sql('insert into public.orders values (2)')).rejects.toThrow('safe mode')
    expect(await subject.sql('select id from public.orders')).toEqual([{ id: 1 }])
    expect(await subject.sql('select from tms.fence_writes union all select from tms.safe_writes')).toEqual([])
  } finally {
    restore()
    await subject.stop()
    await rm(folder, { recursive: true, force: true })
  }
})
