import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { granted } from '../../src/drivers/refusal.ts'
import { sqlBeside, subjects } from '../contract/subjects.ts'
import { until } from '../servers/process.ts'
import { doneAll, policy, readyFleet, type Fleet } from './fleet.ts'

const parents = ['agent_tasks_history', 'agent_runs', 'agent_logs'] as const
type Sql = (text: string) => Promise<Record<string, unknown>[]>

const month = (ahead: number, from = new Date()) =>
  new Date(Date.UTC(from.getUTCFullYear(), from.getUTCMonth() + ahead, 1)).toISOString().slice(0, 7).replace('-', '')
const monthly = parents.flatMap((parent) => [0, 1, 2].map((ahead) => `${parent}_${month(ahead)}`)).toSorted()

/** As if the schema was made long ago and nobody has worked since. */
const forgetMonths = (sql: Sql) => sql(`drop table if exists ${monthly.map((name) => `tms.${name}`).join(', ')}`)
const partitions = async (sql: Sql) =>
  (
    await sql(
      `select c.relname, c.relrowsecurity and c.relforcerowsecurity as secured from pg_class c join pg_inherits i on i.inhrelid = c.oid
        where i.inhparent in ('tms.agent_tasks_history'::regclass, 'tms.agent_runs'::regclass, 'tms.agent_logs'::regclass)
          and c.relname !~ '_default$' and c.relname >= 'agent' order by 1`,
    )
  ).flatMap(({ relname, secured }) => (secured === true ? [String(relname)] : []))

describe.each(Object.entries(subjects))('upkeep through %s', (driver, make) => {
  let fleet: Fleet
  let afterInit: string[]
  const sql: Sql = (text) => sqlBeside(fleet.subject, fleet.operator)(text)
  const upkeep = async () => granted(await fleet.worker.call('upkeep', {}))
  const count = async (from: string) => Number((await sql(`select count(*)::integer as n from ${from}`))[0]?.['n'])

  beforeAll(async () => {
    const subject = await make()
    await forgetMonths((text) => subject.sql(text))
    fleet = await readyFleet(subject, [policy('demo')])
    afterInit = await partitions(sql)
  })
  afterAll(() => fleet.stop())

  const work = async (worker: string) => {
    const ids = await fleet.enqueue('acme', [{ function: 'demo.one' }, { function: 'demo.one' }])
    const tasks = granted(await fleet.worker.call('tasks_claim', { worker, limit: 10 })).tasks
    granted(await fleet.worker.call('tasks_finish', { worker, done: doneAll(tasks) }))
    return ids
  }

  test('init makes the partitions of this month and the next two, however old the schema is', () => {
    expect(afterInit).toEqual(monthly)
  })

  test('a worker finds them made before its first task, however long nobody has worked', async () => {
    await forgetMonths(sql)
    const worker = await fleet.hello(['demo'])
    expect(await partitions(sql)).toEqual(monthly)
    await work(worker)
    expect(await count('tms.agent_runs_default')).toBe(0)
    granted(await fleet.worker.call('worker_bye', { worker }))
  })

  test('runs that came before their partition are moved there, and counted once', async () => {
    const worker = await fleet.hello(['demo'])
    await upkeep()
    await forgetMonths(sql)
    const before = Number(granted(await fleet.operator.call('agents_metrics', {})).completed)
    const [id = ''] = await work(worker)
    expect(await count('tms.agent_runs_default')).toBe(2)

    expect(await upkeep()).toMatchObject({ failed: null, rolled: 2 })
    expect(await partitions(sql)).toEqual(monthly)
    expect(await count('tms.agent_runs_default')).toBe(0)
    expect(granted(await fleet.operator.call('agents_runs', { task: id, limit: 10 })).runs).toHaveLength(1)
    await upkeep()
    expect(Number(granted(await fleet.operator.call('agents_metrics', {})).completed)).toBe(before + 2)
    granted(await fleet.worker.call('worker_bye', { worker }))
  })

  test('a month with too much in the default partition stays there, and the next ones get their own', async () => {
    await forgetMonths(sql)
    await sql(
      `insert into tms.agent_logs (at, agent, level, message) select clock_timestamp(), 'demo', 'info', 'x' from generate_series(1, 20001)`,
    )
    expect(await upkeep()).toMatchObject({ failed: null })
    expect(await partitions(sql)).toEqual(monthly.filter((name) => name !== `agent_logs_${month(0)}`))
    expect(await count('tms.agent_logs')).toBeGreaterThanOrEqual(20001)
    await sql(`delete from tms.agent_logs`)
    await upkeep()
    expect(await partitions(sql)).toEqual(monthly)
  })

  test('a partition that cannot be made is told, and the rest is done', async () => {
    await forgetMonths(sql)
    await sql(`create type tms.agent_logs_${month(1)} as enum ()`)
    await sql(`insert into tms.edge_nonces values ('k', 'old', now() - interval '1 day')`)
    expect((await upkeep()).failed).toBe(`type "agent_logs_${month(1)}" already exists`)
    expect(await count('tms.edge_nonces')).toBe(0)
    await sql(`drop type tms.agent_logs_${month(1)}`)
    expect((await upkeep()).failed).toBeNull()
  })

  test('partitions past their time are dropped, one a step', async () => {
    for (const name of ['agent_logs_202401', 'agent_runs_202402'])
      await sql(
        `create table tms.${name} partition of tms.${name.slice(0, -7)} for values from ('${name.slice(-6, -2)}-${name.slice(-2)}-01') to ('${name.slice(-6, -2)}-${name.slice(-2)}-28');
         alter table tms.${name} owner to tms_owner`,
      )
    expect(await upkeep()).toMatchObject({ dropped: ['agent_logs_202401'], more: true })
    expect(await upkeep()).toMatchObject({ dropped: ['agent_runs_202402'], more: true })
    expect(await upkeep()).toMatchObject({ dropped: [], more: false })
  })
  test('who reads for long holds up neither upkeep nor the ends of tasks', async ({ skip }) => {
    skip(driver === 'embedded', 'there is one connection')
    const worker = await fleet.hello(['demo'])
    await forgetMonths(sql)
    await sql(`create table tms.agent_runs_202401 partition of tms.agent_runs for values from ('2024-01-01') to ('2024-02-01');
      alter table tms.agent_runs_202401 owner to tms_owner`)
    const reading = sql(`begin; select count(*) from tms.agent_runs; select pg_sleep(6); commit`)
    const readers = `pg_stat_activity where query like 'begin; select count(*) from tms.agent_runs%' and wait_event = 'PgSleep'`
    await until('somebody reads', async () => (await count(readers)) === 1)

    let answer: Awaited<ReturnType<typeof upkeep>> | undefined
    const kept = upkeep().then((said) => (answer = said))
    let slowest = 0
    do {
      const began = performance.now()
      await work(worker)
      slowest = Math.max(slowest, performance.now() - began)
    } while (answer === undefined)
    await kept
    expect(await count(readers), 'and still reads').toBe(1)
    expect(slowest).toBeLessThan(1500)
    expect(answer).toMatchObject({ dropped: [], failed: null })

    await reading
    expect(await upkeep()).toMatchObject({ dropped: ['agent_runs_202401'], failed: null })
    expect(await partitions(sql)).toEqual(monthly)
    granted(await fleet.worker.call('worker_bye', { worker }))
  })
})
