import { randomUUID } from 'node:crypto'
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
      `insert into tms.agent_logs (at, agent, level, message) select clock_timestamp(), 'demo', 'info', 'x' from generate_series(1, 5001)`,
    )
    expect(await upkeep()).toMatchObject({ failed: null })
    expect(await partitions(sql)).toEqual(monthly.filter((name) => name !== `agent_logs_${month(0)}`))
    expect(await count('tms.agent_logs')).toBeGreaterThanOrEqual(5001)
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
  test('events go with their last delivery, and what somebody may still act on stays', async () => {
    const deliveries: readonly [name: string, status: string, days: number, diedDaysAgo?: number][] = [
      ['delivered long ago', 'delivered', 31],
      ['delivered lately', 'delivered', 29],
      ['waits for ever', 'pending', 400],
      ['under way', 'sending', 400],
      ['died long ago', 'dead', 100, 91],
      ['died lately', 'dead', 100, 1],
    ]
    const values = deliveries.map(([name, status, days, died = days]) => `('${name}', '${status}', ${days}, ${died})`)
    await sql(`delete from tms.outbox_deliveries; delete from tms.outbox_events`)
    await sql(`with given (name, status, days, died) as (values ${values.join(', ')}), events as (
        insert into tms.outbox_events (company_id, topic, payload, created_at)
          select gen_random_uuid(), g.name, '{}', now() - g.days * interval '1 day' from given g returning id, company_id, topic)
      insert into tms.outbox_deliveries (event_id, target, company_id, status, next_at, lease_until, created_at)
        select e.id, 'gone', e.company_id, g.status, now() - g.died * interval '1 day', now() + interval '1 day', now() - g.days * interval '1 day'
          from events e join given g on g.name = e.topic`)
    await sql(`insert into tms.outbox_events (company_id, topic, payload, created_at)
      select gen_random_uuid(), 'nobody wants it ' || d, '{}', now() - d * interval '1 day' from unnest('{29,31}'::integer[]) d`)
    await upkeep()
    const topics = (await sql(`select topic from tms.outbox_events order by id`)).map(({ topic }) => topic)
    expect(topics).toEqual(['delivered lately', 'waits for ever', 'under way', 'died lately', 'nobody wants it 29'])
    expect(await count('tms.outbox_deliveries')).toBe(4)
  })

  test('a delivery that dies says since when', async () => {
    const targets = (...names: string[]) =>
      fleet.operator.call('outbox_targets_set', {
        request_id: randomUUID(),
        targets: names.map((name) => ({
          name,
          kind: 'file' as const,
          topics: ['x.*'],
          max_attempts: 2,
          config: { file: 'x' },
        })),
      })
    await targets('left', 'refuses', 'fails')
    await sql(`delete from tms.outbox_deliveries; delete from tms.outbox_events`)
    await sql(`with events as (
        insert into tms.outbox_events (company_id, topic, payload) select gen_random_uuid(), n, '{}' from unnest('{left,refuses,fails}'::text[]) n returning *)
      insert into tms.outbox_deliveries (event_id, target, company_id, attempts, next_at, created_at)
        select e.id, e.topic, e.company_id, 1, now() - interval '200 days', now() - interval '200 days' from events e`)
    await targets('refuses', 'fails')
    const taken = granted(await fleet.worker.call('outbox_claim', { limit: 10 })).deliveries
    const results = taken.map(({ id, claim, target }) => ({
      id,
      claim,
      outcome: target === 'fails' ? ('retry' as const) : ('rejected' as const),
    }))
    granted(await fleet.worker.call('outbox_finish', { results }))
    await upkeep()
    const dead = await sql(`select target from tms.outbox_deliveries where status = 'dead' order by id`)
    expect(dead.map(({ target }) => target)).toEqual(['left', 'refuses', 'fails'])
    await targets()
  })

  test('refusals end after 91 days, closed dead letters after a year, and open ones never', async () => {
    await sql(`delete from tms.refusals`)
    await sql(
      `insert into tms.refusals select now() - d * interval '1 day', 'w', 'f', 'ROLE_DENIED', gen_random_uuid(), d from unnest('{90,92}'::integer[]) d`,
    )
    await sql(`insert into tms.dead_letter_queue (task_id, company_id, agent, fn_name, payload, bytes, error_class, error, attempts, created_at, status, closed_at)
      select 10 * days + place, gen_random_uuid(), 'demo', status || ' ' || days, '{}', 2, 'bug', 'x', 1, now() - interval '900 days', status, case when status like '%ed' then now() - days * interval '1 day' end
        from unnest('{open,replaying,replayed,discarded}'::text[]) with ordinality s (status, place), unnest('{360,370}'::integer[]) days`)
    await upkeep()
    expect(await sql(`select count::integer from tms.refusals where who = 'w'`)).toEqual([{ count: 90 }])
    const kept = (await sql(`select fn_name from tms.dead_letter_queue order by task_id`)).map(({ fn_name }) => fn_name)
    expect(kept.toSorted()).toEqual([
      'discarded 360',
      'open 360',
      'open 370',
      'replayed 360',
      'replaying 360',
      'replaying 370',
    ])
    await sql(`delete from tms.dead_letter_queue`)
  })

  test('what the default partitions kept goes row by row', async () => {
    await sql(`delete from tms.agent_runs; delete from tms.agent_tasks_history`)
    await sql(`insert into tms.agent_runs (task_id, claim, attempt, company_id, agent, fn_name, outcome, finished_at, ms, epoch)
      select d, 1, 1, gen_random_uuid(), 'demo', 'demo.one', 'failed', now() - d * interval '1 day', 1, 0 from unnest('{300,400}'::integer[]) d`)
    await sql(`insert into tms.agent_tasks_history (id, company_id, agent, fn_name, status, priority, attempts, claim, max_attempts, next_run_at, finished_at, created_at, payload)
      select d, gen_random_uuid(), 'demo', 'demo.one', 'failed', 0, 1, 1, 1, now(), now() - d * interval '1 day', now(), '{}' from unnest('{300,400}'::integer[]) d`)
    await upkeep()
    expect(await sql(`select task_id::integer as id from tms.agent_runs`)).toEqual([{ id: 300 }])
    expect(await sql(`select id::integer from tms.agent_tasks_history`)).toEqual([{ id: 300 }])
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
