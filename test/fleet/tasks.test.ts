import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { EndedTask } from '../../src/drivers/contract/fleet.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { sqlBeside, subjects } from '../contract/subjects.ts'
import { doneAll, policy, readyFleet, type Fleet } from './fleet.ts'

describe.each(Object.entries(subjects))('tasks through %s', (name, make) => {
  let fleet: Fleet
  beforeAll(async () => {
    fleet = await readyFleet(await make(), [policy('demo')])
  })
  afterAll(() => fleet.stop())

  const claim = async (worker: string, limit = 100) =>
    granted(await fleet.worker.call('tasks_claim', { worker, limit })).tasks
  const finish = async (worker: string, ...rest: EndedTask[]) =>
    granted(await fleet.worker.call('tasks_finish', { worker, rest })).outcomes
  const done = async (worker: string, tasks: Awaited<ReturnType<typeof claim>>) =>
    granted(
      await fleet.worker.call('tasks_finish', {
        worker,
        done: doneAll(tasks),
      }),
    ).outcomes
  const status = async (id: string) => granted(await fleet.operator.call('agents_runs', { task: id, limit: 10 }))
  const drained = async () => {
    const worker = await fleet.hello(['demo'], 150)
    for (let tasks = await claim(worker); tasks.length > 0; tasks = await claim(worker)) await done(worker, tasks)
    await fleet.worker.call('worker_bye', { worker })
  }

  test('a task goes from enqueue to completed, with a run', async () => {
    const [id = ''] = await fleet.enqueue('acme', [{ function: 'demo.one', payload: { load: 'L1' } }])
    const worker = await fleet.hello(['demo'])
    const tasks = await claim(worker)
    expect(tasks).toHaveLength(1)
    expect(tasks[0]).toMatchObject({ id, claim: 1, attempt: 1, payload: { load: 'L1' } })
    expect(await done(worker, tasks)).toEqual({})
    const { task, runs } = await status(id)
    expect(task?.status).toBe('completed')
    expect(runs.map((run) => run.outcome)).toEqual(['completed'])
    await fleet.worker.call('worker_bye', { worker })
  })

  test('a function that no policy allows is refused', async () => {
    const answer = await fleet.operator.call('tasks_enqueue', {
      request_id: randomUUID(),
      tenant: 'acme',
      tasks: [{ function: 'other.thing' }],
    })
    expect(answer).toMatchObject({ refused: { code: 'POLICY_DENIED' } })
  })

  test('the same idempotency key makes one task, also within one call', async () => {
    const first = await fleet.enqueue('acme', [
      { function: 'demo.one', key: 'k1' },
      { function: 'demo.one', key: 'k1' },
    ])
    const second = await fleet.enqueue('acme', [{ function: 'demo.one', key: 'k1' }, { function: 'demo.one' }])
    expect(first[0]).toBe(first[1])
    expect(second[0]).toBe(first[0])
    expect(second[1]).not.toBe(first[0])
    expect((await status(second[1] ?? '')).task?.status).toBe('pending')
    await drained()
  })

  test('one tenant, many waiting of every priority, does not keep another from its single task', async () => {
    for (const priority of [1, 0, -1]) {
      await fleet.enqueue(
        'acme',
        Array.from({ length: 40 }, () => ({ function: 'demo.one', priority })),
      )
    }
    const [single = ''] = await fleet.enqueue('globex', [{ function: 'demo.one', priority: -1 }])
    const worker = await fleet.hello(['demo'])
    const first = await claim(worker, 20)
    expect(first).toHaveLength(20)
    expect(first.map(({ id }) => id)).toContain(single)
    await fleet.worker.call('worker_bye', { worker })
    await drained()
  })

  test('a stale claim ends nothing, and a repeated answer says completed again', async () => {
    const [id = ''] = await fleet.enqueue('acme', [{ function: 'demo.one' }])
    const one = await fleet.hello(['demo'])
    const [mine] = await claim(one)
    expect(mine?.id).toBe(id)
    expect(await finish(one, { id, claim: 1, outcome: 'returned' })).toEqual({ [id]: 'returned' })
    const two = await fleet.hello(['demo'])
    const [theirs] = await claim(two)
    expect(theirs).toMatchObject({ id, claim: 2, attempt: 1 })
    expect(await finish(one, { id, claim: 1, outcome: 'completed' })).toEqual({ [id]: 'stale' })
    expect(await finish(one, { id, claim: 2, outcome: 'completed' })).toEqual({ [id]: 'stale' })
    expect(await finish(two, { id, claim: 2, outcome: 'completed' })).toEqual({ [id]: 'completed' })
    expect(await finish(two, { id, claim: 2, outcome: 'completed' })).toEqual({ [id]: 'completed' })
    expect((await status(id)).runs).toHaveLength(1)
    for (const worker of [one, two]) await fleet.worker.call('worker_bye', { worker })
  })

  test('failures are retried with backoff, then buried; validation is buried at once', async () => {
    const [id = '', other = ''] = await fleet.enqueue('acme', [{ function: 'demo.one' }, { function: 'demo.two' }])
    const worker = await fleet.hello(['demo'])
    const outcomes: string[] = []
    for (
      let round = 0;
      outcomes.filter((o) => o === 'quarantined' || o === 'failed').length < 2 && round < 200;
      round++
    ) {
      for (const { id: task, claim: taken } of await claim(worker)) {
        const answer = await finish(worker, {
          id: task,
          claim: taken,
          outcome: 'failed',
          class: task === id ? 'external_api' : 'validation',
          error: 'no answer',
        })
        outcomes.push(answer[task] ?? '')
      }
    }
    expect(outcomes.sort()).toEqual(['failed', 'quarantined', 'retry', 'retry'])
    const { letters } = granted(await fleet.operator.call('dlq_list', { tenant: 'acme', limit: 10 }))
    expect(letters.map((l) => [l.task, l.class]).sort()).toEqual(
      [
        [id, 'external_api'],
        [other, 'validation'],
      ].sort(),
    )
    expect((await status(id)).runs.map((r) => r.outcome)).toEqual(['failed', 'retried', 'retried'])
    await fleet.worker.call('worker_bye', { worker })
  })

  test('events and follow-ups commit with the end of the task; what the policy does not allow fails that task only', async () => {
    granted(
      await fleet.operator.call('outbox_targets_set', {
        request_id: randomUUID(),
        targets: [{ name: 'all', kind: 'file', topics: ['demo.*'], config: {} }],
      }),
    )
    const [good = '', bad = ''] = await fleet.enqueue('globex', [{ function: 'demo.one' }, { function: 'demo.two' }])
    const worker = await fleet.hello(['demo'])
    const tasks = await claim(worker)
    const of = (id: string) => tasks.find((task) => task.id === id)?.claim ?? 0
    const outcomes = await finish(
      worker,
      {
        id: good,
        claim: of(good),
        outcome: 'completed',
        output: { price: '12.50' },
        effects: {
          events: [
            { topic: 'demo.priced', payload: { load: 1 }, key: 'once' },
            { topic: 'demo.priced', payload: { load: 1 }, key: 'once' },
            { topic: 'demo.other', payload: {}, order: 'L1' },
          ],
          tasks: [{ function: 'demo.two', payload: { follow: true }, key: 'f1' }],
        },
      },
      { id: bad, claim: of(bad), outcome: 'completed', effects: { events: [{ topic: 'billing.pay', payload: {} }] } },
    )
    expect(outcomes).toEqual({ [good]: 'completed', [bad]: 'failed' })
    const { deliveries } = granted(await fleet.operator.call('outbox_list', { tenant: 'globex', limit: 10 }))
    expect(deliveries.map((d) => d.topic).sort()).toEqual(['demo.other', 'demo.priced'])
    const next = await claim(worker)
    expect(next.map(({ payload }) => payload)).toEqual([{ follow: true }])
    await done(worker, next)
    await fleet.worker.call('worker_bye', { worker })
  })

  test('deliveries: one holder, in order of the key, retried, and dead in the end', async () => {
    const take = async () => granted(await fleet.worker.call('outbox_claim', { limit: 10 })).deliveries
    const first = await take()
    expect(first).toHaveLength(2)
    expect(await take()).toEqual([])
    const results = first.map(({ id, claim: c }) => ({ id, claim: c, outcome: 'delivered' as const }))
    expect(granted(await fleet.worker.call('outbox_finish', { results })).recorded).toBe(2)
    expect(granted(await fleet.worker.call('outbox_finish', { results })).recorded).toBe(0)
    const lag = granted(await fleet.operator.call('outbox_lag', { tenant: 'globex' }))
    expect(lag).toMatchObject({ samples: '2', waiting: '0' })
  })

  test('events of one task are written in the order in which they were published, with a key or without', async () => {
    const [id = ''] = await fleet.enqueue('acme', [{ function: 'demo.one' }])
    const worker = await fleet.hello(['demo'])
    const [task] = await claim(worker)
    const events = ['z', undefined, 'a', undefined].map((key, n) => ({
      topic: 'demo.step',
      payload: { n },
      order: 'L9',
      ...(key === undefined ? {} : { key: `${id}/${key}` }),
    }))
    await finish(worker, { id, claim: task?.claim ?? 0, outcome: 'completed', effects: { events } })
    const seen: unknown[] = []
    for (let round = 0; round < 6; round++) {
      const { deliveries } = granted(await fleet.worker.call('outbox_claim', { limit: 10 }))
      const mine = deliveries.filter(({ topic }) => topic === 'demo.step')
      expect(mine.length).toBeLessThanOrEqual(1)
      seen.push(...mine.map(({ payload }) => (payload as { n: number }).n))
      const results = deliveries.map(({ id: delivery, claim: c }) => ({
        id: delivery,
        claim: c,
        outcome: 'delivered' as const,
      }))
      granted(await fleet.worker.call('outbox_finish', { results }))
    }
    expect(seen).toEqual([0, 1, 2, 3])
    await fleet.worker.call('worker_bye', { worker })
  })

  test('what needs approval is parked with its effects, and approving commits those', async () => {
    const [id = ''] = await fleet.enqueue('acme', [{ function: 'demo.careful' }])
    const worker = await fleet.hello(['demo'])
    const tasks = await claim(worker)
    // a worker that calls it simply done parks it all the same
    expect(await done(worker, tasks)).toEqual({ [id]: 'awaiting_approval' })
    const waiting = granted(await fleet.operator.call('tasks_waiting', { tenant: 'acme', limit: 10 })).tasks
    expect(waiting.map((t) => t.id)).toEqual([id])
    const approve = (tenant: string) =>
      fleet.operator.call('tasks_approve', { request_id: randomUUID(), tenant, id, approve: true, why: 'looked at it' })
    expect(await approve('globex')).toMatchObject({ refused: { code: 'NOT_FOUND' } })
    expect(granted(await approve('acme'))).toEqual({ id, outcome: 'completed' })
    expect(await approve('acme')).toMatchObject({ refused: { code: 'CONFLICT' } })
    await fleet.worker.call('worker_bye', { worker })
  })

  test('a halted fleet claims, ends and publishes nothing; people may still enqueue; it goes on after the resume', async () => {
    const [id = ''] = await fleet.enqueue('acme', [{ function: 'demo.one' }])
    const worker = await fleet.hello(['demo'])
    const [task] = await claim(worker)
    const halted = granted(await fleet.operator.call('fence_halt', { why: 'drill' }))
    expect(halted).toMatchObject({ fenced: true, already: false })
    expect(
      await fleet.worker.call('tasks_finish', { worker, done: doneAll([{ id, claim: task?.claim ?? 0 }]) }),
    ).toMatchObject({
      refused: { code: 'FENCED' },
    })
    await fleet.enqueue('acme', [{ function: 'demo.two' }])
    const claimed = granted(await fleet.worker.call('tasks_claim', { worker, limit: 10 }))
    expect(claimed.tasks).toEqual([])
    expect(claimed.control.halted).toBe(true)
    granted(await fleet.worker.call('worker_beat', { worker, acknowledges: halted.epoch }))
    const again = granted(await fleet.operator.call('fence_halt', { why: 'drill' }))
    expect(again).toMatchObject({ already: true, epoch: halted.epoch })
    const certificate = granted(
      await fleet.operator.call('fence_certificate', { request_id: randomUUID(), halt: halted.halt ?? '' }),
    )
    expect(certificate.acknowledged).toHaveLength(1)
    const lift = { request_id: randomUUID(), step: 'lift' as const, why: 'over' }
    expect(await fleet.operator.call('fence_resume', lift)).toMatchObject({ refused: { code: 'CONFLICT' } })
    for (const step of ['prepare', 'lift'] as const) {
      granted(await fleet.operator.call('fence_resume', { request_id: randomUUID(), step, why: 'over' }))
    }
    expect(await done(worker, task ? [task] : [])).toEqual({})
    await drained()
    await fleet.worker.call('worker_bye', { worker })
  })

  test('a dead letter is replayed once, as planned, and closes when it succeeds', async () => {
    const plan = granted(await fleet.operator.call('dlq_plan', { tenant: 'acme' }))
    expect(plan.items.length).toBeGreaterThan(0)
    const replay = (digest: string) =>
      fleet.operator.call('dlq_replay', {
        request_id: randomUUID(),
        tenant: 'acme',
        ids: plan.items.map((i) => i.id),
        plan: digest,
        why: 'fixed',
      })
    expect(await replay('wrong')).toMatchObject({ refused: { code: 'PLAN_CHANGED' } })
    const { items } = granted(await replay(plan.plan))
    expect(items).toHaveLength(plan.items.length)
    expect(await replay(plan.plan)).toMatchObject({ refused: { code: 'PLAN_CHANGED' } })
    await drained()
    const stats = granted(await fleet.operator.call('dlq_stats', { tenant: 'acme' }))
    expect(stats.replays[0]).toMatchObject({ items: items.length, succeeded: items.length, failed: 0 })
    expect(stats.counts.every((c) => c.status === 'replayed')).toBe(true)
  })

  test('of a stopped replay nothing commits, and whatever comes back is withdrawn with its dead letter open', async () => {
    const tenant = 'initech'
    const operator = fleet.operator
    granted(await operator.call('tenants_add', { request_id: randomUUID(), key: tenant, name: tenant }))
    await fleet.enqueue(tenant, [
      { function: 'demo.careful' },
      ...Array.from({ length: 9 }, () => ({ function: 'demo.one' })),
    ])
    const one = await fleet.hello(['demo'])
    const failed = (taken: Awaited<ReturnType<typeof claim>>) =>
      taken.map(({ id, claim }) => ({
        id,
        claim,
        outcome: 'failed' as const,
        class: 'validation' as const,
        error: 'x',
      }))
    const [careful, ...others] = await claim(one)
    // the first dead letter is the first to be claimed
    if (careful) await finish(one, ...failed([careful]))
    await finish(one, ...failed(others))
    const plan = granted(await operator.call('dlq_plan', { tenant }))
    const ids = plan.items.map(({ id }) => id)
    expect(ids).toHaveLength(10)
    const asked = { request_id: randomUUID(), tenant, ids, plan: plan.plan, why: 'fixed' }
    granted(await operator.call('dlq_replay', asked))

    const tasks = await claim(one, 8)
    const two = await fleet.hello(['demo'])
    expect(await claim(two)).toHaveLength(2)
    const ended = async (n: number, more: Omit<EndedTask, 'id' | 'claim'>) => {
      const { id = '', claim = 0 } = tasks[n] ?? {}
      return (await finish(one, { id, claim, ...more }))[id]
    }
    expect(await ended(0, { outcome: 'completed' })).toBe('awaiting_approval')
    await finish(one, ...failed(tasks.slice(1, 4)))

    const effects = { events: [{ topic: 'demo.late', payload: {} }], tasks: [{ function: 'demo.two', payload: {} }] }
    expect(await ended(4, { outcome: 'completed', effects })).toBe('returned')
    expect(await done(one, tasks.slice(5, 6))).toEqual({ [tasks[5]?.id ?? '']: 'returned' })
    expect(await ended(6, { outcome: 'returned' })).toBe('returned')
    expect(await ended(7, { outcome: 'failed', class: 'external_api', error: 'x', retry: true })).toBe('quarantined')
    expect(granted(await fleet.worker.call('worker_bye', { worker: two })).returned).toBe(2)
    const approval = { request_id: randomUUID(), tenant, id: tasks[0]?.id ?? '', approve: true, why: 'fine' }
    expect(await operator.call('tasks_approve', approval)).toHaveProperty('refused.code', 'CONFLICT')

    expect(await claim(one)).toEqual([])
    const sql = sqlBeside(fleet.subject, operator)
    expect(await sql(`select 1 from tms.outbox_events where topic = 'demo.late'`)).toEqual([])
    const { replays, counts } = granted(await operator.call('dlq_stats', { tenant }))
    expect(replays).toMatchObject([
      { items: 10, tried: 4, succeeded: 0, failed: 4, withdrawn: 6, stopped_why: '3 of 10 failed' },
    ])
    expect(replays[0]?.finished_at).not.toBeNull()
    expect(counts.map(({ status, letters }) => [status, letters]).sort()).toEqual([
      ['open', '1'],
      ['open', '9'],
    ])
    expect(granted(await operator.call('dlq_plan', { tenant })).items.map(({ id }) => id)).toEqual(ids)
    await fleet.worker.call('worker_bye', { worker: one })
  })

  test('paused: nothing is claimed and nothing running commits; the work goes back', async () => {
    const [id = ''] = await fleet.enqueue('acme', [{ function: 'demo.one' }])
    const worker = await fleet.hello(['demo'])
    const tasks = await claim(worker)
    const control = (state: 'paused' | 'running') =>
      fleet.operator.call('agents_control', { request_id: randomUUID(), agent: 'demo', state, why: 'test' })
    granted(await control('paused'))
    expect(granted(await fleet.operator.call('agents_settle', {})).settled).toBe(true)
    expect(await done(worker, tasks)).toEqual({ [id]: 'returned' })
    expect(await claim(worker)).toEqual([])
    granted(await control('running'))
    expect((await claim(worker)).map((t) => [t.id, t.attempt])).toEqual([[id, 1]])
    await fleet.worker.call('worker_bye', { worker })
    await drained()
  })

  describe('paused', () => {
    const steer = async (of: { agent: string } | { tenant: string }, state: 'paused' | 'draining' | 'running') => {
      granted(await fleet.operator.call('agents_control', { request_id: randomUUID(), ...of, state, why: 'test' }))
      granted(await fleet.operator.call('agents_settle', {}))
    }
    const failed = (id: string) => ({
      id,
      claim: 1,
      outcome: 'failed' as const,
      class: 'validation' as const,
      error: 'wrong',
    })
    /** What failures leave: runs, dead letters, events. */
    const traces = async () => {
      const sql = sqlBeside(fleet.subject, fleet.operator)
      const [{ n } = {}] = await sql(
        `select (select count(*) from tms.agent_runs) + (select count(*) from tms.dead_letter_queue) + (select count(*) from tms.outbox_events) as n`,
      )
      return Number(n)
    }

    test.each([{ agent: 'demo' }, { tenant: 'acme' }])(
      'for %o: no failure commits and no step is kept, but what was spent counts; drained, what runs may end',
      async (of) => {
        await fleet.load(policy('demo', { tokens_per_task: 10, tokens_per_day: 1_000_000 }))
        const [id = '', other = ''] = await fleet.enqueue('acme', [{ function: 'demo.one' }, { function: 'demo.one' }])
        const worker = await fleet.hello(['demo'])
        expect(await claim(worker)).toHaveLength(2)
        await steer(of, 'paused')
        const step = () => fleet.worker.call('tasks_step', { worker, id, claim: 1, name: 'pay', result: 1 })
        expect(await step()).toHaveProperty('refused.code', 'PAUSED')
        expect(await fleet.worker.call('tasks_spend', { worker, id, claim: 1, tokens: 3 })).toMatchObject({
          tokens: '3',
        })
        const had = await traces()
        expect(await finish(worker, failed(id))).toEqual({ [id]: 'returned' })
        expect(await traces()).toBe(had)
        expect((await status(id)).task).toMatchObject({ status: 'pending', attempts: 0, error: null })
        await steer(of, 'draining')
        expect(await finish(worker, failed(other))).toEqual({ [other]: 'failed' })
        await steer(of, 'running')
        const [again] = await claim(worker)
        expect(again).toMatchObject({ id, attempt: 1, claim: 2 })
        await done(worker, again ? [again] : [])
        expect((await status(id)).runs).toMatchObject([{ outcome: 'completed', tokens: '3' }])
        await fleet.worker.call('worker_bye', { worker })
        await fleet.load(policy('demo'))
      },
    )

    test('what its worker lost goes back and does not fail; of others it fails', async () => {
      const [id = ''] = await fleet.enqueue('acme', [{ function: 'demo.one' }])
      const [other = ''] = await fleet.enqueue('globex', [{ function: 'demo.one' }])
      const worker = await fleet.hello(['demo'])
      expect(await claim(worker)).toHaveLength(2)
      await steer({ tenant: 'acme' }, 'paused')
      await sqlBeside(
        fleet.subject,
        fleet.operator,
      )(`update tms.workers set lease_until = clock_timestamp() - interval '1 second' where id = ${worker}`)
      expect(granted(await fleet.worker.call('tasks_reap', {})).reaped).toBe(2)
      expect((await status(id)).task).toMatchObject({ status: 'pending', attempts: 0 })
      expect((await status(id)).runs).toEqual([])
      expect((await status(other)).runs).toMatchObject([{ outcome: 'lost' }])
      await steer({ tenant: 'acme' }, 'running')
      await drained()
    })
  })

  test('what is handed back may say for how long and why: no attempt is spent, and nothing counts as tried', async () => {
    const ids = await fleet.enqueue('acme', [{ function: 'demo.one' }, { function: 'demo.one' }])
    const worker = await fleet.hello(['demo'])
    expect(await claim(worker)).toHaveLength(2)
    for (const id of ids) {
      const end = { id, claim: 1, outcome: 'returned', delay_ms: 60_000, error: 'not here', ms: 7 } as const
      expect(await finish(worker, end)).toEqual({ [id]: 'returned' })
      const { task, runs } = await status(id)
      expect(task).toMatchObject({ status: 'pending', attempts: 0, error: 'not here', class: null })
      expect(runs).toEqual([])
    }
    expect(await claim(worker)).toEqual([])
    const sql = sqlBeside(fleet.subject, fleet.operator)
    await sql(`update tms.agent_tasks set next_run_at = next_run_at - interval '60 s' where id in (${ids.join()})`)
    const again = await claim(worker)
    expect(again.map(({ id, attempt }) => [id, attempt])).toEqual(ids.map((id) => [id, 1]))
    await done(worker, again)
    for (const id of ids) expect((await status(id)).task).toMatchObject({ status: 'completed', error: null })
    await fleet.worker.call('worker_bye', { worker })
  })

  describe('an apply that fails', () => {
    let sql: ReturnType<typeof sqlBeside>
    beforeAll(async () => {
      sql = sqlBeside(fleet.subject, fleet.operator)
      for (const statement of [
        'create schema shop',
        'create table shop.sales (n integer)',
        `create function shop.says(args jsonb) returns void language plpgsql security definer as $$
           begin raise exception 'no' using errcode = args ->> 'code'; end $$`,
        `create function shop.asserts(args jsonb) returns void language plpgsql security definer as $$ begin assert false; end $$`,
        `create function shop.sells(args jsonb) returns void language sql security definer as
           $$ insert into shop.sales values ((args ->> 'n')::integer) $$`,
        `create function shop.audit() returns trigger language plpgsql as
           $$ begin if new.n < 0 then raise exception 'out of balance'; end if; return null; end $$`,
        `create constraint trigger audit after insert on shop.sales deferrable initially deferred for each row execute function shop.audit()`,
        'grant usage on schema shop to public',
      ])
        await sql(statement)
      await fleet.load(policy('demo', { apply: ['shop.says', 'shop.asserts', 'shop.sells'] }))
    })
    afterAll(() => fleet.load(policy('demo')))
    beforeEach(() => sql('truncate shop.sales'))

    /** Three tasks in one call; the second calls `bad`. */
    async function between(bad: EndedTask['effects']) {
      const ids = await fleet.enqueue('globex', [
        { function: 'demo.one' },
        { function: 'demo.one' },
        { function: 'demo.one' },
      ])
      const worker = await fleet.hello(['demo'])
      const tasks = await claim(worker)
      expect(tasks).toHaveLength(3)
      const rest = tasks.map(({ id, claim: taken }) => ({
        id,
        claim: taken,
        outcome: 'completed' as const,
        effects: id === ids[1] ? bad : { apply: [{ fn: 'shop.sells', args: { n: 1 } }] },
      }))
      const said = await finish(worker, ...rest).catch((error: unknown) => error)
      const sales = Number((await sql('select count(*) as n from shop.sales'))[0]?.['n'])
      await fleet.worker.call('worker_bye', { worker })
      await drained()
      return {
        outcomes: said instanceof Error ? said.name : ids.map((id) => (said as Record<string, string>)[id]),
        sales,
      }
    }
    const others = { outcomes: ['completed', 'retry', 'completed'], sales: 2 }

    test.each(['TM423', '40001', '57014', 'P0004'])('with %s of its own fails its task and no other', async (code) => {
      expect(await between({ apply: [{ fn: 'shop.says', args: { code } }] })).toEqual(others)
    })

    test('an assertion fails its task and no other', async () => {
      expect(await between({ apply: [{ fn: 'shop.asserts', args: {} }] })).toEqual(others)
    })

    test('a constraint that waits for the commit fails its task and no other, where it may be asked before', async () => {
      const version = Number((await sql(`select current_setting('server_version_num') as n`))[0]?.['n'])
      const answer = await between({ apply: [{ fn: 'shop.sells', args: { n: -1 } }] })
      if (version >= 180000) expect(answer).toEqual(others)
      else expect(answer, 'its trigger would run as tms_owner').toEqual({ outcomes: 'TmsError', sales: 0 })
    })
  })

  test('effects whose numbers are none fail their task, with the reason', async () => {
    const ids = await fleet.enqueue('globex', [
      { function: 'demo.one' },
      { function: 'demo.one' },
      { function: 'demo.one' },
    ])
    const worker = await fleet.hello(['demo'])
    const odd = [{ priority: 'high' }, { delay_ms: 1e30 }, { priority: 1, delay_ms: 1e3 }]
    const tasks = await claim(worker)
    const rest = tasks.map(({ id, claim: taken }) => ({
      id,
      claim: taken,
      outcome: 'completed' as const,
      // Not what the types allow: a worker may send anything.
      effects: { tasks: [{ function: 'demo.two', payload: {}, ...odd[ids.indexOf(id)] }] } as never,
    }))
    const outcomes = await finish(worker, ...rest)
    expect(ids.map((id) => outcomes[id])).toEqual(['failed', 'failed', 'completed'])
    for (const id of ids.slice(0, 2)) {
      expect((await status(id)).runs[0]).toMatchObject({
        class: 'policy',
        error: 'the priority or the delay of "demo.two" is not a whole number',
      })
    }
    await fleet.worker.call('worker_bye', { worker })
    await drained()
  })

  test('slots are leased from one limit, and a worker without one ends nothing', async () => {
    const one = await fleet.hello(['demo'], 100)
    const said = granted(
      await fleet.worker.call('worker_hello', {
        request_id: randomUUID(),
        name: 'two',
        host: 'test',
        pid: 1,
        agents: ['demo'],
        slots: 100,
      }),
    )
    expect(said.slots).toBe(50)
    for (const worker of [one, said.worker]) await fleet.worker.call('worker_bye', { worker })
  })

  test('who is refused by a halt hears so a moment later, and at once where the operator shares the connections', async () => {
    const worker = await fleet.hello(['demo'])
    granted(await fleet.operator.call('fence_halt', { why: 'a test' }))
    const least = async () => {
      const took: number[] = []
      for (let i = 0; i < 5; i++) {
        const began = performance.now()
        expect(await fleet.worker.call('tasks_finish', { worker })).toHaveProperty('refused.code', 'FENCED')
        took.push(performance.now() - began)
      }
      return Math.min(...took)
    }
    expect(await least(), 'once it is fenced').toBeLessThan(100)
    // As long as the halt still waits for others.
    await sqlBeside(fleet.subject, fleet.operator)('update tms.halts set fenced = false')
    const waiting = await least()
    for (const step of ['prepare', 'lift'] as const)
      granted(await fleet.operator.call('fence_resume', { request_id: randomUUID(), step, why: 'over' }))
    if (name === 'postgres') expect(waiting).toBeGreaterThanOrEqual(100)
    else expect(waiting).toBeLessThan(100)
    await fleet.worker.call('worker_bye', { worker })
  })

  test('upkeep folds runs into metrics once', async () => {
    const before = granted(await fleet.operator.call('agents_metrics', {}))
    granted(await fleet.worker.call('upkeep', {}))
    granted(await fleet.worker.call('upkeep', {}))
    const after = granted(await fleet.operator.call('agents_metrics', {}))
    expect({ ...after, to: '', from: '' }).toEqual({ ...before, to: '', from: '' })
    expect(Number(after.completed)).toBeGreaterThan(5)
  })
})
