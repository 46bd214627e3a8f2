import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import type pg from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { AgentPolicy, ClaimedTask, EndedTask } from '../../src/drivers/contract/fleet.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { doneAll, policy } from '../fleet/fleet.ts'
import { until } from '../servers/process.ts'
import { ask, halt, resume, startArena, without, type Arena, type Edit } from './fleet/arena.ts'

/** Each rail holds; and with the rail taken out of the SQL, the same test sees it. */
const full = process.env['TMS_TEST_FULL'] === '1'

let arena: Arena
/** The next one, in UTC. */
const midnight = async () => {
  const [row] = await arena.sql(
    `select to_char(clock_timestamp() at time zone 'UTC' + interval '1 day', 'YYYY-MM-DD"T00:00:00.000000Z"') as at`,
  )
  return row?.['at']
}
let raw: pg.Client
let other: pg.Client
let n8n: Driver
const rails = (change: Partial<AgentPolicy> = {}) => policy('demo', { apply: ['app.effect', 'app.member'], ...change })

beforeAll(async () => {
  arena = await startArena()
  raw = await arena.connect(arena.workerUrl)
  other = await arena.connect(arena.workerUrl)
  n8n = await arena.fleet.subject.as(await arena.fleet.subject.account('n8n'))
})
afterAll(async () => {
  await n8n.close()
  await arena.stop()
})
beforeEach(async () => {
  for (const client of [raw, other]) await client.query('rollback')
  await clean()
  await arena.fleet.load(rails())
})

const clean = () =>
  arena.sql(`truncate app.effects, tms.agent_tasks, tms.agent_runs, tms.dead_letter_queue, tms.workers, tms.agent_state, tms.tenant_state, tms.agent_pulse,
    tms.spend, tms.task_spend, tms.task_steps, tms.task_effects, tms.queues, tms.replay_runs, tms.outbox_events, tms.outbox_deliveries, tms.outbox_keys,
    tms.run_digests, tms.agent_metrics, tms.agent_logs`)

/** The rail as it is, and then with a piece of its SQL replaced. */
function rail(name: string, holds: () => Promise<void>, ...edits: Edit[]): void {
  test(name, holds)
  test(`… and without the rail this is seen: ${name}`, async () => {
    await without(arena, edits, async () => {
      await expect(holds()).rejects.toThrow(/expected/)
      for (const client of [raw, other]) await client.query('rollback')
    })
  })
}

const hello = (slots = 10) => arena.fleet.hello(['demo', 'side'], slots)
const claim = async (worker: string, limit = 100) =>
  granted(await arena.fleet.worker.call('tasks_claim', { worker, limit })).tasks
const finish = async (worker: string, ...rest: EndedTask[]) =>
  granted(await arena.fleet.worker.call('tasks_finish', { worker, rest })).outcomes
const done = async (worker: string, tasks: readonly Pick<ClaimedTask, 'id' | 'claim'>[]) =>
  granted(
    await arena.fleet.worker.call('tasks_finish', {
      worker,
      done: doneAll(tasks),
    }),
  ).outcomes
const one = async (fn = 'demo.one', tenant = 'acme') => (await arena.fleet.enqueue(tenant, [{ function: fn }]))[0] ?? ''
const many = async (n: number, tenant = 'acme', fn = 'demo.one', priority = 0) => {
  for (let left = n; left > 0; left -= 1000) {
    await arena.fleet.enqueue(
      tenant,
      Array.from({ length: Math.min(left, 1000) }, () => ({ function: fn, priority })),
    )
  }
}
const number = async (sql: string, parameters: unknown[] = []) =>
  Number((await arena.sql(`select (${sql}) as n`, parameters))[0]?.['n'])
const companyOf = async (tenant: string) =>
  String((await arena.sql(`select id from tms.companies where key = $1`, [tenant]))[0]?.['id'])
const statusOf = async (id: string) =>
  String((await arena.sql(`select status from tms.agent_tasks where id = $1`, [id]))[0]?.['status'])

/** Waits until a call has been answered or stands before somebody else's lock. */
async function answeredOrWaiting(call: Promise<unknown>): Promise<void> {
  let answered = false
  void call.then(
    () => (answered = true),
    () => (answered = true),
  )
  await until('it is answered or waits', async () => {
    if (answered) return true
    return (await waitingForLocks()) > 0
  })
}

const waitingForLocks = () => number(`select count(*) from pg_stat_activity where wait_event_type = 'Lock'`)

const helloArgs = (slots: number) => ({
  request_id: randomUUID(),
  name: 'w',
  host: 'h',
  pid: 1,
  agents: ['demo', 'side'],
  slots,
})

describe('slots', () => {
  const sum = () => number(`select coalesce(sum(slots), 0) from tms.workers where stopped_at is null`)

  rail(
    'all workers together have at most 150 slots, whatever they ask for',
    async () => {
      for (const slots of [100, 100, 1000]) await hello(slots)
      expect(await sum()).toBe(150)
    },
    ['_lease_slots', 'least(wanted, tms._fleet_limit() - taken)', 'wanted'],
  )

  rail(
    'two that sign in at once do not both get the rest',
    async () => {
      await raw.query('begin')
      await ask(raw, 'worker_hello', helloArgs(100))
      const second = ask(other, 'worker_hello', helloArgs(100))
      await answeredOrWaiting(second)
      await raw.query('commit')
      expect((await second)['slots']).toBe(50)
    },
    ['_lease_slots', /perform pg_advisory_xact_lock[^;]*;|perform tms._latch[^;]*;/, ''],
  )

  rail(
    'a lease that is being renewed by a call that is held open keeps its slots',
    async () => {
      await clean()
      const { worker } = await ask(raw, 'worker_hello', helloArgs(100))
      await arena.sql(`update tms.workers set lease_until = clock_timestamp() + interval '500 milliseconds'`)
      await raw.query('begin')
      expect(await ask(raw, 'worker_beat', { worker })).toHaveProperty('slots', 100)
      await until(
        'its lease has ended',
        async () => (await number(`select count(*) from tms.workers where lease_until < clock_timestamp()`)) === 1,
      )
      // nor does it keep others from reaping
      granted(await arena.fleet.worker.call('tasks_reap', {}))
      expect(await ask(other, 'worker_hello', helloArgs(100))).toHaveProperty('slots', 50)
      await raw.query('commit')
      expect(await sum()).toBe(150)
    },
    ['_lease_slots', 'and w.stopped_at is null;', 'and w.stopped_at is null and w.lease_until > clock_timestamp();'],
  )

  test('a lease that ended gives its slots to others, and gets back what is left when it is renewed late', async () => {
    const { worker } = await ask(raw, 'worker_hello', helloArgs(100))
    await arena.sql(`update tms.workers set lease_until = clock_timestamp() - interval '1 second'`)
    expect(await ask(other, 'worker_hello', helloArgs(100))).toHaveProperty('slots', 100)
    expect(await ask(raw, 'worker_beat', { worker })).toHaveProperty('refused.code', 'LEASE_LOST')
    expect(await sum()).toBe(100)
  })

  test('a limit that is lowered is kept after a beat of each worker', async () => {
    const two = [await hello(75), await hello(75)]
    await arena.fleet.set('budget.agents.maxConcurrent', 100)
    try {
      for (const worker of two) granted(await arena.fleet.worker.call('worker_beat', { worker, slots: 75 }))
      expect(await sum()).toBeLessThanOrEqual(100)
    } finally {
      await arena.fleet.set('budget.agents.maxConcurrent', 150)
    }
  })

  test('a login that nobody knows cannot keep workers from signing in', async () => {
    const stranger = await arena.connect(arena.unknownUrl)
    await stranger.query(
      `select pg_advisory_lock(hashtext('tms slots'), 0), pg_advisory_lock(hashtext('tms policies'), 0)`,
    )
    await other.query(`set statement_timeout = '1s'`)
    try {
      expect(await ask(other, 'worker_hello', helloArgs(1))).toHaveProperty('worker')
    } finally {
      await other.query('reset statement_timeout')
      await stranger.query('select pg_advisory_unlock_all()')
    }
  })

  test('two claims at once give one worker no more than its slots and their buffer', async () => {
    await many(100)
    const worker = await hello(1)
    await raw.query('begin')
    await ask(raw, 'tasks_claim', { worker, limit: 40 })
    const second = ask(other, 'tasks_claim', { worker, limit: 40 })
    await answeredOrWaiting(second)
    await raw.query('commit')
    await second
    expect(await number(`select count(*) from tms.agent_tasks where status = 'running'`)).toBe(40)
  })
})

describe("an agent's limits", () => {
  rail(
    'no more of its tasks run than its concurrency, two claims at once included',
    async () => {
      await clean()
      await arena.fleet.load(rails({ concurrency: 3 }))
      await arena.sql(`insert into tms.agent_state (agent) values ('demo')`)
      await many(20)
      const [worker, another] = [await hello(70), await hello(70)]
      await raw.query('begin')
      await ask(raw, 'tasks_claim', { worker, limit: 2 })
      const second = ask(other, 'tasks_claim', { worker: another, limit: 10 })
      await answeredOrWaiting(second)
      await raw.query('commit')
      await second
      expect(await number(`select count(*) from tms.agent_tasks where status = 'running'`)).toBe(3)
    },
    ['_open_queues', 'where x.agent = p.agent for update;', 'where x.agent = p.agent;'],
  )

  rail(
    'no more of its tasks begin in a minute than its requests per minute',
    async () => {
      await clean()
      await arena.fleet.load(rails({ requests_per_minute: 3 }))
      await many(20)
      const worker = await hello(100)
      await until('the minute is young', async () => (await number(`extract(second from clock_timestamp())`)) < 55)
      expect([(await claim(worker, 2)).length, (await claim(worker)).length, (await claim(worker)).length]).toEqual([
        2, 1, 0,
      ])
    },
    ['_open_queues', /p\.requests_per_minute - case.*?end/s, '1000'],
  )

  const budgets = [
    ['tokens_per_task', 'tokens', 'spent.tokens + d_tokens > p.tokens_per_task'],
    ['calls_per_task', 'calls', 'spent.calls + d_calls > p.calls_per_task'],
    ['cost_per_task', 'cost', 'spent.cost + d_cost > p.cost_per_task'],
    ['tokens_per_day', 'tokens', 'daily.tokens + d_tokens > p.tokens_per_day'],
    ['calls_per_day', 'calls', 'daily.calls + d_calls > p.calls_per_day'],
    ['cost_per_day', 'cost', 'daily.cost + d_cost > p.cost_per_day'],
  ] as const
  for (const [limit, what, condition] of budgets) {
    rail(
      `${limit}: two at once that only fit one by one are not both let through`,
      async () => {
        await clean()
        await arena.fleet.load(rails({ [limit]: limit.startsWith('cost') ? '100' : 100 }))
        await many(2)
        const worker = await hello()
        const [a, b] = await claim(worker)
        const target = limit.endsWith('task') ? a : b
        const spend = (client: pg.Client, task: typeof a) =>
          ask(client, 'tasks_spend', { worker, id: task?.id, claim: task?.claim, [what]: what === 'cost' ? '60' : 60 })
        await raw.query('begin')
        expect(await spend(raw, a)).not.toHaveProperty('refused')
        const second = spend(other, target)
        await answeredOrWaiting(second)
        await raw.query('commit')
        expect(await second).toHaveProperty('refused.code', 'BUDGET_EXCEEDED')
        if (limit.endsWith('day')) expect(await second).toHaveProperty('refused.again_at', await midnight())
        else expect(await second).not.toHaveProperty('refused.again_at')
      },
      ['tasks_spend', condition, 'false'],
    )
  }

  test.each([
    ['cost', 'NaN'],
    ['cost', 'Infinity'],
    ['tokens', 9_000_000_000_000_000],
    ['tokens', null],
    ['tokens', -5],
    ['calls', -1],
    ['cost', '-0.5'],
    ['nothing', undefined],
  ])('%s of %s is no amount that can be spent', async (what, amount) => {
    await one()
    const worker = await hello()
    const [task] = await claim(worker)
    const answer = await ask(raw, 'tasks_spend', { worker, id: task?.id, claim: task?.claim, [what]: amount }).catch(
      (error: unknown) => ({ refused: { code: error instanceof Error && 'code' in error ? error.code : '' } }),
    )
    expect(answer).toHaveProperty('refused')
    expect(
      String(
        (await arena.sql(`select coalesce(sum(cost), 0) + coalesce(sum(tokens), 0) as n from tms.spend`))[0]?.['n'],
      ),
    ).toBe('0')
  })

  test('what a task has spent is in its runs once: after a retry, and when it ends with nothing to say', async () => {
    const [first, quiet] = [await one(), await one()]
    const worker = await hello()
    for (const { id, claim: taken } of await claim(worker)) {
      granted(await arena.fleet.worker.call('tasks_spend', { worker, id, claim: taken, tokens: 100 }))
      granted(await arena.fleet.worker.call('tasks_step', { worker, id, claim: taken, name: 's', result: 1 }))
      if (id === first) await finish(worker, { id, claim: taken, outcome: 'failed', class: 'external_api', error: 'x' })
      else await done(worker, [{ id, claim: taken }])
    }
    let again: Awaited<ReturnType<typeof claim>> = []
    await until('it is tried again', async () => (again = await claim(worker)).length > 0)
    const { id, claim: taken } = again[0] ?? { id: '', claim: 0 }
    granted(await arena.fleet.worker.call('tasks_spend', { worker, id, claim: taken, tokens: 11 }))
    await done(worker, again)
    const rows = await arena.sql(
      `select task_id::text as id, sum(tokens)::int as n from tms.agent_runs group by 1 order by 1`,
    )
    expect(rows).toEqual([
      { id: first, n: 111 },
      { id: quiet, n: 100 },
    ])
    expect(await number(`(select count(*) from tms.task_spend) + (select count(*) from tms.task_steps)`)).toBe(0)
  })
})

describe('the breaker', () => {
  const strict = rails({ breaker_percent: 5, breaker_samples: 20, breaker_seconds: 1, max_attempts: 100 })
  const breaker = async () =>
    String(
      (await arena.sql(`select coalesce(max(breaker), 'closed') as is from tms.agent_state where agent = 'demo'`))[0]?.[
        'is'
      ],
    )
  const fail = (worker: string, task: Pick<ClaimedTask, 'id' | 'claim'> | undefined) =>
    finish(worker, {
      id: task?.id ?? '',
      claim: task?.claim ?? 0,
      outcome: 'failed',
      class: 'external_api',
      error: 'x',
    })
  /** 19 good, `bad` failed. */
  async function after(bad: number): Promise<string> {
    await clean()
    await arena.fleet.load(strict)
    await many(30)
    const worker = await hello()
    const tasks = await claim(worker, 19 + bad)
    await done(worker, tasks.slice(0, 19))
    for (const task of tasks.slice(19)) await fail(worker, task)
    return worker
  }

  rail(
    'one of twenty is still well, two of twenty-one open it, and nothing of the agent is claimed',
    async () => {
      await after(1)
      expect(await breaker()).toBe('closed')
      const worker = await after(2)
      expect(await breaker()).toBe('open')
      expect(await claim(worker)).toEqual([])
    },
    ['_breaker', 'p.breaker_percent', '1000000'],
  )

  /** What an open breaker lets through, once its pause is over. */
  async function probeOf(worker: string) {
    let probe: Awaited<ReturnType<typeof claim>> = []
    await until('the breaker lets one through', async () => (probe = await claim(worker)).length > 0)
    return probe
  }
  rail(
    'half open it lets one task through',
    async () => {
      const worker = await after(2)
      const probe = await probeOf(worker)
      expect(probe).toHaveLength(1)
      expect(await claim(worker)).toEqual([])
      await done(worker, probe)
      expect(await breaker()).toBe('closed')
    },
    ['_open_queues', /here := 1;/g, 'here := null;'],
  )

  /** The breaker half open, its probe under way, and two tasks that run since before it opened. */
  async function probing() {
    await clean()
    await arena.fleet.load(strict)
    await many(30)
    const worker = await hello(20)
    const tasks = await claim(worker, 23)
    await done(worker, tasks.slice(0, 19))
    for (const task of tasks.slice(19, 21)) await fail(worker, task)
    const probe = await probeOf(worker)
    return { worker, probe, early: tasks.slice(21) }
  }
  rail(
    'what ends well that ran before it opened does not close it; its probe does',
    async () => {
      const { worker, probe, early } = await probing()
      await done(worker, early.slice(0, 1))
      for (const { id, claim: taken } of early.slice(1))
        await finish(worker, { id, claim: taken, outcome: 'completed', output: 1 })
      expect(await breaker()).toBe('half_open')
      expect(await claim(worker)).toEqual([])
      await done(worker, probe)
      expect(await breaker()).toBe('closed')
    },
    ['_pulse', 'and u.claimed >= s.breaker_since', ''],
  )
  rail(
    'what fails that ran before it opened is not its probe',
    async () => {
      const { worker, probe, early } = await probing()
      for (const task of early) await fail(worker, task)
      expect(await breaker()).toBe('half_open')
      await fail(worker, probe[0])
      expect(await breaker()).toBe('open')
    },
    ['_breaker', 'if claimed < s.breaker_since then return; end if;', ''],
  )

  rail(
    "inputs that don't fit take the agent from nobody",
    async () => {
      await clean()
      await arena.fleet.load(strict)
      await many(30)
      const worker = await hello(20)
      const tasks = await claim(worker, 25)
      await done(worker, tasks.slice(0, 10))
      for (const { id, claim: taken } of tasks.slice(10))
        await finish(worker, {
          id,
          claim: taken,
          outcome: 'failed',
          class: 'validation',
          error: 'x',
          retry: false,
          unfit: true,
        })
      expect(await breaker()).toBe('closed')
    },
    ['_fail_task', `if as_outcome <> 'unfit' then`, 'if true then'],
  )

  rail(
    'a probe that comes back unused keeps no other from going',
    async () => {
      const worker = await after(2)
      const probe = await probeOf(worker)
      const [{ id, claim: taken } = { id: '', claim: 0 }] = probe
      await finish(worker, { id, claim: taken, outcome: 'returned', delay_ms: 60_000, error: 'no code' })
      expect(await claim(worker)).toHaveLength(1)
    },
    ['_end_tasks', `set breaker_until = clock_timestamp()`, 'set breaker_until = s.breaker_until'],
  )

  test('a look at an empty queue does not use the probe up', async () => {
    const worker = await after(2)
    await arena.sql(`update tms.agent_tasks set status = 'completed' where status = 'pending'`)
    await pause(1100)
    await claim(worker)
    await one()
    expect(await claim(worker)).toHaveLength(1)
  })

  test('what failed before it closed does not open it again', async () => {
    const worker = await after(3)
    let probe: Awaited<ReturnType<typeof claim>> = []
    await until('the minute is young', async () => (await number(`extract(second from clock_timestamp())`)) < 55)
    await until('the breaker lets one through', async () => (probe = await claim(worker)).length > 0)
    await done(worker, probe)
    const [next] = await claim(worker)
    await fail(worker, next)
    expect(await breaker()).toBe('closed')
  })
})

describe('what a policy allows', () => {
  rail(
    'a function that no policy names is not taken in',
    async () => {
      const answer = await arena.fleet.operator.call('tasks_enqueue', {
        request_id: randomUUID(),
        tenant: 'acme',
        tasks: [{ function: 'other.thing' }],
      })
      expect(answer).toHaveProperty('refused.code', 'POLICY_DENIED')
    },
    ['tasks_enqueue', 'if found then', 'if false then'],
  )

  for (const [name, effects] of [
    ['publish', { events: [{ topic: 'billing.pay', payload: {} }] }],
    ['enqueue', { tasks: [{ function: 'side.one', payload: {} }] }],
    ['apply', { apply: [{ fn: 'app.other', args: {} }] }],
  ] as const) {
    rail(
      `${name} of what it does not name fails that task, and nothing of it is done`,
      async () => {
        await clean()
        await arena.sql(
          `create or replace function app.other(args jsonb) returns void language sql security definer as $$ insert into app.effects values (1) $$;
           alter function app.other owner to app_owner`,
        )
        await arena.fleet.load(rails(), policy('side', { functions: ['side.one'], approval: [] }))
        await one()
        const worker = await hello()
        const [task] = await claim(worker)
        const { id, claim: taken } = task ?? { id: '', claim: 0 }
        const said = await finish(worker, {
          id,
          claim: taken,
          outcome: 'completed',
          effects: structuredClone(effects) as never,
        })
        expect(said).toEqual({ [id]: 'failed' })
        expect(
          await number(
            `(select count(*) from tms.outbox_events where topic <> 'agent.dead_letter') + (select count(*) from tms.agent_tasks) + (select count(*) from app.effects)`,
          ),
        ).toBe(1)
      },
      ['_effects_problems', 'begin', 'begin return;'],
    )
  }

  rail(
    'a worker that calls a task done, or done with effects, does not skip its approval',
    async () => {
      await clean()
      const [a, b] = [await one('demo.careful'), await one('demo.careful')]
      const worker = await hello()
      const tasks = await claim(worker)
      const outcomes = {
        ...(await done(worker, tasks.slice(0, 1))),
        ...(await finish(worker, {
          id: tasks[1]?.id ?? '',
          claim: tasks[1]?.claim ?? 0,
          outcome: 'completed',
          effects: { apply: [{ fn: 'app.effect', args: { task: 1 } }] },
        })),
      }
      expect(outcomes).toEqual({ [a]: 'awaiting_approval', [b]: 'awaiting_approval' })
      expect(await number(`select count(*) from app.effects`)).toBe(0)
    },
    ['_end_tasks', /careful text\[\] := array\(.*?\);/, `careful text[] := '{}';`],
  )
})

describe('whose task it is', () => {
  const endTasks = '_end_tasks'
  rail(
    'a claim that was followed by another ends nothing',
    async () => {
      await clean()
      const id = await one()
      const worker = await hello()
      await claim(worker)
      await finish(worker, { id, claim: 1, outcome: 'returned' })
      await claim(worker)
      expect(await done(worker, [{ id, claim: 1 }])).toEqual({ [id]: 'stale' })
      expect(await finish(worker, { id, claim: 1, outcome: 'completed', output: 1 })).toEqual({ [id]: 'stale' })
      expect(await statusOf(id)).toBe('running')
    },
    [endTasks, 't.claim = g.claim and', ''],
  )

  rail(
    "another worker's claim is not this worker's to end",
    async () => {
      await clean()
      const id = await one()
      const [mine, theirs] = [await hello(), await hello()]
      await claim(theirs)
      expect(await done(mine, [{ id, claim: 1 }])).toEqual({ [id]: 'stale' })
      expect(await finish(mine, { id, claim: 1, outcome: 'completed', output: 1 })).toEqual({ [id]: 'stale' })
      expect(await statusOf(id)).toBe('running')
    },
    [endTasks, 't.worker_id = worker, false', 'true, false'],
  )

  rail(
    "another account's worker number works for nobody else",
    async () => {
      await clean()
      const worker = await hello()
      await arena.sql(
        `insert into tms.role_operations (role, operation, redacted) values ('n8n', 'task.work', false) on conflict do nothing`,
      )
      try {
        expect(await n8n.call('tasks_claim', { worker, limit: 1 })).toHaveProperty('refused.code', 'LEASE_LOST')
      } finally {
        await arena.sql(`delete from tms.role_operations where role = 'n8n' and operation = 'task.work'`)
      }
      expect(await n8n.call('tasks_claim', { worker, limit: 1 })).toHaveProperty('refused.code', 'ROLE_DENIED')
    },
    ['_worker', 'w.principal_id = c.principal_id and', ''],
  )

  test("a delivery that one account holds is not another's to end", async () => {
    granted(
      await arena.fleet.operator.call('outbox_targets_set', {
        request_id: randomUUID(),
        targets: [{ name: 'all', kind: 'file', topics: ['demo.*'], config: {} }],
      }),
    )
    const id = await one()
    const worker = await hello()
    await claim(worker)
    await finish(worker, {
      id,
      claim: 1,
      outcome: 'completed',
      effects: { events: [{ topic: 'demo.x', payload: {} }] },
    })
    const { deliveries } = granted(await arena.fleet.worker.call('outbox_claim', { limit: 1 }))
    const results = deliveries.map((d) => ({ id: d.id, claim: d.claim, outcome: 'delivered' as const }))
    expect(results).toHaveLength(1)
    expect(granted(await n8n.call('outbox_finish', { results })).recorded).toBe(0)
  })

  rail(
    "what a halt caught under way to a target takes no place of the halt's own",
    async () => {
      await arena.sql('truncate tms.outbox_targets, tms.outbox_events, tms.outbox_deliveries')
      granted(
        await arena.fleet.operator.call('outbox_targets_set', {
          request_id: randomUUID(),
          targets: [{ name: 'all', kind: 'file', topics: ['demo.*', 'fleet.*'], config: {} }],
        }),
      )
      const write = (topic: string, lane: string, n: number) =>
        arena.sql(
          `with event as (insert into tms.outbox_events (company_id, topic, payload)
             select c.id, $1, '{}' from tms.companies c, generate_series(1, $3::int) where c.key = 'acme' returning id, company_id)
           insert into tms.outbox_deliveries (event_id, target, company_id, lane, created_at) select id, 'all', company_id, $2, clock_timestamp() from event`,
          [topic, lane, n],
        )
      const taken = async () => granted(await arena.fleet.worker.call('outbox_claim', { limit: 100 })).deliveries
      await write('demo.x', 'normal', 25)
      const underWay = await taken()
      expect(underWay).toHaveLength(20)
      await halt(arena.fleet)
      try {
        const results = underWay.map(({ id, claim: of }) => ({ id, claim: of, outcome: 'delivered' as const }))
        expect(granted(await arena.fleet.worker.call('outbox_finish', { results })).recorded).toBe(0)
        await write('fleet.halted', 'halt', 1)
        expect((await taken()).map(({ topic }) => topic)).toEqual(['fleet.halted'])
      } finally {
        await resume(arena.fleet)
      }
    },
    ['outbox_claim', "and d.target = t.name and (not halted or d.lane = 'halt')) < 20", 'and d.target = t.name) < 20'],
  )

  /** Events of one key to one target, in an outbox that holds nothing else. */
  const chained = async (numbers: readonly number[], fresh = true) => {
    if (fresh) {
      await arena.sql('truncate tms.outbox_targets, tms.outbox_events, tms.outbox_deliveries')
      granted(
        await arena.fleet.operator.call('outbox_targets_set', {
          request_id: randomUUID(),
          targets: [{ name: 'all', kind: 'file', topics: ['demo.*'], config: {} }],
        }),
      )
    }
    await arena.sql(
      `with event as (insert into tms.outbox_events (company_id, topic, payload, ordering_key)
         select c.id, 'demo.x', to_jsonb(n), 'k' from tms.companies c, unnest($1::int[]) n where c.key = 'acme' order by n returning id, company_id)
       insert into tms.outbox_deliveries (event_id, target, company_id, ordering_key, created_at)
         select id, 'all', company_id, 'k', clock_timestamp() from event order by id`,
      [numbers],
    )
  }
  const nextOne = async () => granted(await arena.fleet.worker.call('outbox_claim', { limit: 1 })).deliveries
  const delivered = (one: { readonly id: string; readonly claim: number } | undefined) => ({
    results: [{ id: one?.id ?? '', claim: one?.claim ?? 0, outcome: 'delivered' as const }],
  })

  rail(
    'an event that is put behind another while that one ends goes all the same',
    async () => {
      await chained([1, 2])
      await arena.sql(
        `update tms.outbox_deliveries set next_at = clock_timestamp() + interval '1 hour' where id = (select min(id) from tms.outbox_deliveries)`,
      )
      // Another host finds the first waiting for its next try, and has not committed yet.
      const other = await arena.connect(arena.workerUrl)
      await other.query('begin')
      const looked = await other.query<{ answer: { deliveries: unknown[] } }>(
        `select tms.outbox_claim('{"limit": 10}') as answer`,
      )
      expect(looked.rows[0]?.answer.deliveries).toEqual([])
      await arena.sql(`update tms.outbox_deliveries set next_at = clock_timestamp() where next_at > clock_timestamp()`)
      const [first] = await nextOne()
      expect(first?.payload).toBe(1)
      const ending = arena.fleet.worker.call('outbox_finish', delivered(first))
      const waits = async () =>
        (await arena.sql(`select from pg_locks where not granted and pid <> pg_backend_pid()`)).length > 0
      await Promise.race([ending, until('the end waits for the look', waits)])
      await other.query('commit')
      granted(await ending)
      expect((await nextOne()).map(({ payload }) => payload)).toEqual([2])
    },
    ['outbox_finish', 'order by d.id for update;', 'order by d.id;'],
  )

  rail(
    'an event that comes while the one before it is being recorded goes when it is',
    async () => {
      await chained([1])
      const [first] = await nextOne()
      const other = await arena.connect(arena.workerUrl)
      await other.query('begin')
      await other.query('select tms.outbox_finish($1)', [JSON.stringify(delivered(first))])
      await chained([2], false)
      expect(await nextOne()).toEqual([])
      await other.query('commit')
      expect((await nextOne()).map(({ payload }) => payload)).toEqual([2])
    },
    ['_outbox_heads', "where j.before = 'pending' and not j.paused", 'where j.before is not null and not j.paused'],
  )

  test("nobody writes into the log of a task that they don't hold", async () => {
    const id = await one('demo.one', 'globex')
    const worker = await hello()
    granted(
      await arena.fleet.worker.call('tasks_finish', {
        worker,
        rest: [],
        logs: [
          {
            at: new Date(0).toISOString(),
            task: id,
            claim: 1,
            agent: 'demo',
            level: 'info',
            message: 'forged',
            trace: null,
          },
        ],
      } as never),
    )
    expect(await number(`select count(*) from tms.agent_logs where company_id is not null`)).toBe(0)
  })
})

describe('apply', () => {
  const applied = async (fn: string) => {
    await clean()
    await arena.fleet.load(rails({ apply: [fn], max_attempts: 1 }))
    const id = await one()
    const worker = await hello()
    await claim(worker)
    const said = await finish(worker, { id, claim: 1, outcome: 'completed', effects: { apply: [{ fn, args: {} }] } })
    expect([said[id], await number(`select count(*) from app.effects`)]).toEqual(['quarantined', 0])
  }

  rail(
    "a function with its caller's rights is not called",
    async () => {
      await arena.sql('grant insert on app.effects to tms_owner')
      await applied('app.invoker')
    },
    ['_apply_all', 'p.prosecdef and', ''],
  )

  rail(
    'a function of tms itself is not called',
    async () => {
      await arena.sql(`create or replace function app.ours(args jsonb) returns void language sql security definer as $$ insert into app.effects values (1) $$;
        alter function app.ours(jsonb) owner to tms_owner; grant insert on app.effects to tms_owner`)
      await applied('app.ours')
    },
    ['_apply_all', /and p\.proowner not in \([^)]*\)/, ''],
  )

  /** What app.member saw for a task of each tenant, while the worker holds both. */
  async function seen(before: (client: pg.Client) => Promise<unknown>): Promise<void> {
    await clean()
    const [acme, globex] = [await companyOf('acme'), await companyOf('globex')]
    const [a, b] = [await one('demo.one', 'acme'), await one('demo.one', 'globex')]
    const worker = await hello()
    const tasks = await claim(worker)
    const rest = tasks.map(({ id, claim: taken }) => ({
      id,
      claim: taken,
      outcome: 'completed',
      effects: { apply: [acme, globex].map((company) => ({ fn: 'app.member', args: { task: Number(id), company } })) },
    }))
    await before(raw)
    const { outcomes } = await ask(raw, 'tasks_finish', { worker, rest })
    await raw.query('reset tms.acting')
    expect(outcomes).toEqual({ [a]: 'completed', [b]: 'completed' })
    // By task: tenants come in the order of their ids, and within a task in the order of its calls.
    const rows = await arena.sql(`select task_id::text as id, note from app.effects order by task_id, ctid`)
    expect(rows.map((row) => `${String(row['id'])} ${String(row['note'])}`)).toEqual([
      `${a} true`,
      `${a} false`,
      `${b} false`,
      `${b} true`,
    ])
  }

  rail("inside, the caller is a member of the task's tenant and of no other", () => seen(async () => undefined), [
    '_act_for',
    'perform set_config',
    'return; perform set_config',
  ])

  rail(
    'a setting that claims to act for a tenant makes nobody a member of it',
    async () => {
      const globex = await companyOf('globex')
      const forge = (client: pg.Client) =>
        client.query(`select set_config('tms.acting', $1, false)`, [`${globex}.${'0'.repeat(64)}`])
      await seen(forge)
      await raw.query('begin')
      await forge(raw)
      await raw.query('select pg_current_xact_id()')
      const { rows } = await raw.query<{ yes: boolean }>('select tms.is_company_member($1) as yes', [globex])
      await raw.query('rollback')
      await raw.query('reset tms.acting')
      expect(rows[0]?.yes).toBe(false)
    },
    ['_acting', /and acting = tms\._sealed\(split_part\(acting, '\.', 1\)\)/, ''],
  )

  rail(
    'who blanks the setting inside is no member of anything, and the task fails',
    async () => {
      await clean()
      await arena.sql(`create or replace function app.blank(args jsonb) returns void language plpgsql security definer as $$ begin
          perform set_config('tms.acting', '', true);
          insert into app.effects values (0, null, tms.is_company_member((args ->> 'company')::uuid)::text);
        end $$; alter function app.blank(jsonb) owner to app_owner`)
      await arena.fleet.load(rails({ apply: ['app.blank'], max_attempts: 1 }))
      const company = await companyOf('globex')
      const [a] = [await one('demo.one', 'acme'), await one('demo.one', 'globex')]
      const worker = await hello()
      await claim(worker)
      const effects = { apply: [{ fn: 'app.blank', args: { company } }] }
      const said = await finish(worker, { id: a, claim: 1, outcome: 'completed', effects })
      expect([said[a], await number(`select count(*) from app.effects`)]).toEqual(['quarantined', 0])
    },
    ['_acting', /if stack ~ .* then/, 'if false then'],
  )

  /** One task whose apply is `fn`, ended in a call of its own: how the call ends, and what becomes of the task. */
  const ended = async (fn: string, body: string): Promise<unknown[]> => {
    await clean()
    await arena.sql(`create or replace function ${fn}(args jsonb) returns void language plpgsql security definer as $$ begin ${body}; end $$;
      alter function ${fn}(jsonb) owner to app_owner`)
    await arena.fleet.load(rails({ apply: [fn] }))
    const id = await one()
    const worker = await hello()
    await claim(worker)
    const rest = [{ id, claim: 1, outcome: 'completed', effects: { apply: [{ fn, args: {} }] } }]
    const code = await ask(raw, 'tasks_finish', { worker, rest }).then(
      () => 'done',
      (error: unknown) => (error instanceof Error && 'code' in error ? error.code : String(error)),
    )
    return [code, await statusOf(id)]
  }
  rail(
    'a time limit, or whoever cancels the call, ends it: nothing goes on without one',
    async () => {
      await raw.query(`set statement_timeout = '1s'`)
      try {
        expect(await ended('app.slow', 'perform pg_sleep(5)')).toEqual(['57014', 'running'])
      } finally {
        await raw.query('reset statement_timeout')
      }
    },
    ['_ends_call', /if code = '57014' then return [^;]*;/, `if code = '57014' then return false;`],
  )
  const inSafeMode = async (work: () => Promise<void>) => {
    granted(await arena.fleet.operator.call('safe_mode_on', { why: 'a test' }))
    try {
      await work()
    } finally {
      granted(
        await arena.fleet.operator.call('safe_mode_off', {
          request_id: randomUUID(),
          override_token_sha256: 'ab'.repeat(32),
          why: 'over',
        }),
      )
    }
  }
  const guarded = `insert into app.loads (who) values ('me')`
  rail(
    'what safe mode forbids is not the fault of the task: it waits, and is not asked for again at once',
    () =>
      inSafeMode(async () => {
        expect(await ended('app.loads', guarded)).toEqual(['done', 'pending'])
        expect(
          await number(
            `select count(*) from tms.agent_tasks where attempts = 0 and next_run_at > clock_timestamp() + interval '20 s'`,
          ),
        ).toBe(1)
        expect(await arena.sql(`select error from tms.agent_tasks where attempts = 0`)).toEqual([
          { error: 'apply app.loads: safe mode is on, nothing is written to guarded tables' },
        ])
      }),
    ['_safe_mode_stops', `-> 'safe_mode' = 'true'`, `-> 'safe_mode' is null`],
  )
  test('who approves a write to a guarded table in safe mode is refused, and the task still waits for approval', async () => {
    await arena.sql(`create or replace function app.loads(args jsonb) returns void language plpgsql security definer as
      $$ begin ${guarded}; end $$; alter function app.loads(jsonb) owner to app_owner`)
    await arena.fleet.load(rails({ apply: ['app.loads'], approval: ['demo.one'] }))
    const id = await one()
    const worker = await hello()
    await claim(worker)
    await finish(worker, { id, claim: 1, outcome: 'completed', effects: { apply: [{ fn: 'app.loads', args: {} }] } })
    const approve = () =>
      arena.fleet.operator.call('tasks_approve', {
        request_id: randomUUID(),
        tenant: 'acme',
        id,
        approve: true,
        why: 'fine',
      })
    await inSafeMode(async () => {
      await expect(approve()).rejects.toHaveProperty('code', 'FENCED')
      expect(await statusOf(id)).toBe('awaiting_approval')
    })
    expect(granted(await approve()).outcome).toBe('completed')
  })

  test("an approval by somebody who sees every tenant applies for the task's tenant and for no other", async () => {
    await arena.fleet.load(rails({ approval: ['demo.one'] }))
    const id = await one('demo.one', 'acme')
    const worker = await hello()
    await claim(worker)
    const companies = [await companyOf('acme'), await companyOf('globex')]
    await finish(worker, {
      id,
      claim: 1,
      outcome: 'completed',
      effects: { apply: companies.map((company) => ({ fn: 'app.member', args: { task: Number(id), company } })) },
    })
    const approval = { request_id: randomUUID(), tenant: 'acme', id, approve: true, why: 'fine' }
    expect(granted(await arena.fleet.operator.call('tasks_approve', approval)).outcome).toBe('completed')
    expect((await arena.sql(`select note from app.effects`)).map((row) => row['note'])).toEqual(['true', 'false'])
  })
})

describe('replay', () => {
  const letters = (n: number, more: { bytes?: number; replays?: number } = {}) =>
    arena.sql(
      `insert into tms.dead_letter_queue (task_id, company_id, agent, fn_name, payload, bytes, error_class, error, attempts, replays)
       select -nextval(pg_get_serial_sequence('tms.dead_letter_queue', 'id')), (select id from tms.companies where key = 'acme'), 'demo', 'demo.one', '{}', $2, 'bug', 'x', 1, $3 from generate_series(1, $1::int)`,
      [n, more.bytes ?? 10, more.replays ?? 0],
    )
  const planned = async () => granted(await arena.fleet.operator.call('dlq_plan', { tenant: 'acme' }))
  const replay = async () => {
    const plan = await planned()
    return arena.fleet.operator.call('dlq_replay', {
      request_id: randomUUID(),
      tenant: 'acme',
      ids: plan.items.map((i) => i.id),
      plan: plan.plan,
      why: 'fixed',
    })
  }
  const replayed = () => number(`select count(*) from tms.agent_tasks where replay_run_id is not null`)

  rail(
    'at most 50 items',
    async () => {
      await clean()
      await letters(60)
      await replay()
      expect(await replayed()).toBe(50)
    },
    ['_replay_plan', `least(50, tms._budget('budget.replay.batchItems', company, 50), n)`, '1000'],
  )
  rail(
    'at most 2 MB',
    async () => {
      await clean()
      await letters(3, { bytes: 1_000_000 })
      await letters(1, { bytes: 3_000_000 })
      await replay()
      expect(await replayed()).toBe(2)
    },
    ['_replay_plan', `least(2097152, tms._budget('budget.replay.batchBytes', company, 2097152))`, '10000000'],
  )
  rail(
    'three times in five minutes',
    async () => {
      await clean()
      for (let i = 0; i < 3; i++) {
        await letters(1)
        expect(await replay()).not.toHaveProperty('refused')
      }
      await letters(1)
      const [first] = await arena.sql(`select tms._utc(min(at) + interval '5 minutes') as over from tms.replay_runs`)
      expect(await replay()).toMatchObject({ refused: { code: 'REPLAY_LIMIT', again_at: first?.['over'] } })
    },
    ['_replay_barred', 'recent >= runs', 'false'],
  )
  rail(
    'a budget of items a day',
    async () => {
      await clean()
      await arena.sql(
        `insert into tms.replay_runs (company_id, by_name, plan, items, bytes, at)
         select id, 'x', 'x', 149, 1, greatest(clock_timestamp() - interval '6 minutes', date_trunc('day', clock_timestamp() at time zone 'UTC') at time zone 'UTC') from tms.companies where key = 'acme'`,
      )
      await letters(2)
      expect(await replay()).toMatchObject({ refused: { code: 'REPLAY_LIMIT', again_at: await midnight() } })
    },
    ['_replay_barred', 'today + items > a_day', 'false'],
  )
  rail(
    'an item at most three times',
    async () => {
      await clean()
      await letters(1, { replays: 3 })
      await letters(1, { replays: 2 })
      await replay()
      expect(await replayed()).toBe(1)
    },
    ['_replay_plan', 'd.replays >= 3', 'false'],
  )
  rail(
    'a step that was done before is not done again',
    async () => {
      await clean()
      const id = await one()
      const worker = await hello()
      const step = (task: string, name: string) =>
        arena.fleet.worker.call('tasks_step', { worker, id: task, claim: 1, name, result: { charged: name } })
      const fail = (task: string) =>
        finish(worker, { id: task, claim: 1, outcome: 'failed', class: 'policy', error: 'x', retry: false })
      await claim(worker)
      granted(await step(id, 'first'))
      await fail(id)
      await replay()
      const [again] = await claim(worker)
      expect(again?.steps).toEqual({ first: { charged: 'first' } })
      granted(await step(again?.id ?? '', 'second'))
      await fail(again?.id ?? '')
      await replay()
      const [last] = await claim(worker)
      expect(last?.steps).toEqual({ first: { charged: 'first' }, second: { charged: 'second' } })
      await done(worker, [last ?? { id: '', claim: 0 }])
      expect(await number(`select count(*) from tms.task_steps`)).toBe(0)
    },
    ['tasks_claim', 'or y.dead_letter_id is not null', ''],
  )
  /** The function has moved from demo to side since. */
  const moved = () =>
    arena.fleet.load(
      rails({ functions: ['demo.two'], approval: [] }),
      policy('side', { functions: ['demo.one'], approval: [] }),
    )
  rail(
    'what moved to another agent is claimed by that one',
    async () => {
      await clean()
      await moved()
      await letters(1)
      await replay()
      expect(await claim(await hello())).toHaveLength(1)
    },
    ['dlq_replay', 'array[works]', 'array[d.agent]'],
  )
  rail(
    'it is asked whether that agent works, not the former one',
    async () => {
      await clean()
      await moved()
      await letters(1)
      await arena.sql(`insert into tms.agent_state (agent, state) values ('demo', 'quarantined')`)
      expect((await planned()).items).toHaveLength(1)
      await arena.sql(`insert into tms.agent_state (agent, state) values ('side', 'paused')`)
      expect((await planned()).skipped).toMatchObject([{ why: 'its agent is paused' }])
    },
    ['_replay_plan', /join tms\.agent_state s on s\.agent = f\.agent/g, 'join tms.agent_state s on s.agent = d.agent'],
  )
  rail(
    'when more than a fifth fails, the rest is withdrawn and stays in the queue of dead letters',
    async () => {
      await clean()
      await letters(10)
      await replay()
      const worker = await hello()
      for (const { id, claim: taken } of await claim(worker, 3)) {
        await finish(worker, { id, claim: taken, outcome: 'failed', class: 'external_api', error: 'x' })
      }
      expect(await number(`select count(*) from tms.dead_letter_queue where status = 'open'`)).toBe(10)
      expect(await claim(worker)).toEqual([])
    },
    ['_replay_counted', 'run.stopped_why is null and', 'false and'],
  )

  const stopped = () => number(`select count(*) from tms.replay_runs where stopped_why is not null`)
  const effects = () => number(`select count(*) from app.effects`)
  const waiting = () => number(`select count(*) from tms.agent_tasks where status = 'pending'`)
  const failing = ({ id, claim: taken }: ClaimedTask): EndedTask => ({
    id,
    claim: taken,
    outcome: 'failed',
    class: 'external_api',
    error: 'x',
  })
  const applying = ({ id, claim: taken }: ClaimedTask): EndedTask => ({
    id,
    claim: taken,
    outcome: 'completed',
    effects: { apply: [{ fn: 'app.effect', args: { task: id } }] },
  })
  /** Ten of which a worker holds all. */
  const held = async (slots = 10) => {
    await clean()
    await letters(10)
    await replay()
    const worker = await hello(slots)
    return { worker, tasks: await claim(worker, 10) }
  }
  rail(
    'what a worker holds of a stopped replay commits nothing, and is withdrawn',
    async () => {
      const { worker, tasks } = await held()
      await finish(worker, ...tasks.slice(0, 3).map(failing))
      await finish(worker, ...tasks.slice(3).map(applying))
      expect(await effects()).toBe(0)
      expect(await number(`select count(*) from tms.dead_letter_queue where status = 'open'`)).toBe(10)
    },
    ['_end_tasks', 'u.run = any (stopped_replays)', 'false'],
  )
  rail(
    'a replay is not stopped between the look at it and the end of its task',
    async () => {
      const { worker, tasks } = await held()
      await finish(worker, ...tasks.slice(1, 3).map(failing))
      const [first, , , fourth] = tasks
      if (!first || !fourth) throw new Error('it holds all of them')
      const blocker = await arena.connect(arena.database.superuserUrl)
      await blocker.query('begin; lock table app.effects')
      const completion = finish(worker, applying(first))
      await until('it applies', async () => (await waitingForLocks()) === 1)
      let answered = false
      const stop = finish(worker, failing(fourth)).finally(() => (answered = true))
      try {
        await until('the stop is answered or waits', async () => answered || (await waitingForLocks()) === 2)
        expect(await stopped()).toBe(0)
      } finally {
        await blocker.query('rollback')
        await Promise.all([completion, stop])
      }
      expect([await effects(), await stopped()]).toEqual([1, 1])
    },
    ['_end_tasks', 'perform from tms.replay_runs r where r.id = any (r_replay) order by r.id for update;', ''],
  )
  rail(
    'what is reaped of a stopped replay waits for nobody again',
    async () => {
      const { worker, tasks } = await held()
      await finish(worker, ...tasks.slice(0, 3).map(failing))
      // far behind its slots: handed back, and none of them fails, whose count would withdraw the others too
      await arena.sql(`update tms.workers set wanted = 0, lease_until = clock_timestamp() - interval '1 second'`)
      expect(granted(await arena.fleet.worker.call('tasks_reap', {})).reaped).toBe(7)
      expect(await waiting()).toBe(0)
      expect(
        await number(`select count(*) from tms.replay_runs where tried = 3 and failed = 3 and withdrawn = 7`),
      ).toBe(1)
    },
    ['tasks_reap', 'if replays is not null then', 'if false then'],
  )
  rail(
    'what is left of a stopped replay when its worker says goodbye waits for nobody again',
    async () => {
      const { worker, tasks } = await held()
      await finish(worker, ...tasks.slice(0, 3).map(failing))
      expect(granted(await arena.fleet.worker.call('worker_bye', { worker })).returned).toBe(7)
      expect(await waiting()).toBe(0)
    },
    ['worker_bye', 'if replays is not null then', 'if false then'],
  )
  test('many workers that end, fail and hand back its tasks at once: it stops, it balances, and none waits for the other crosswise', async () => {
    const clients = await Promise.all(Array.from({ length: 8 }, () => arena.connect(arena.workerUrl)))
    let n = 0
    const fate = (task: ClaimedTask): EndedTask[] =>
      [[applying(task)], [{ id: task.id, claim: task.claim, outcome: 'returned' as const }], [failing(task)], []][
        n++ % 4
      ] ?? []
    for (let round = 0; round < (full ? 12 : 3); round++) {
      await clean()
      await letters(40)
      await replay()
      await Promise.all(
        clients.map(async (client) => {
          const { worker } = await ask(client, 'worker_hello', helloArgs(4))
          for (;;) {
            const taken = await ask(client, 'tasks_claim', { worker, limit: 3 })
            // True because the contract says so: ids and claims, with a comma between.
            const tasks = taken['tasks'] as { ids: string; claims: string } | null
            if (tasks === null) break
            const claims = tasks.claims.split(',')
            const all = tasks.ids.split(',').map((id, i) => ({ id, claim: Number(claims[i]) }) as ClaimedTask)
            await ask(client, 'tasks_finish', { worker, rest: all.flatMap(fate) })
            await ask(client, 'tasks_reap', {})
          }
          await ask(client, 'worker_bye', { worker })
        }),
      )
      expect(
        await number(`select count(*) from tms.replay_runs where stopped_why is not null and finished_at is not null
           and tried = succeeded + failed and tried + withdrawn = items`),
      ).toBe(1)
      expect(await effects()).toBe(await number(`select succeeded from tms.replay_runs`))
    }
  })
})

describe('fairness and control', () => {
  const backlog = full ? 100_000 : 5_000
  rail(
    `${backlog} waiting tasks of one tenant delay another tenant's by one batch at most`,
    async () => {
      await clean()
      await many(1)
      await arena.sql(
        `insert into tms.agent_tasks (company_id, agent, fn_name, max_attempts, next_run_at, payload)
         select company_id, agent, fn_name, 3, next_run_at - interval '1 hour', '{}' from tms.agent_tasks cross join generate_series(1, $1::int)`,
        [backlog],
      )
      const theirs = await one('demo.one', 'globex')
      const worker = await hello(150)
      const batches = [await claim(worker, 10), await claim(worker, 10)]
      expect(batches.flat().map(({ id }) => id)).toContain(theirs)
    },
    ['tasks_claim', 'share := ceil(want::numeric / tenants)', 'share := want'],
    ['tasks_claim', 'order by v.of_tenant, ', 'order by '],
  )

  test("a backlog of high priority in two queues does not keep another tenant's task waiting for ever", async () => {
    await arena.fleet.load(rails(), policy('side', { functions: ['side.one'], approval: [] }))
    await many(200, 'acme', 'demo.one', 1)
    await many(200, 'acme', 'side.one', 1)
    const theirs = await one('demo.one', 'globex')
    const worker = await hello(150)
    const seen: string[] = []
    for (let i = 0; i < 10; i++) seen.push(...(await claim(worker, 10)).map(({ id }) => id))
    expect(seen).toContain(theirs)
  })

  rail(
    "nothing of a paused tenant's backlog is claimed",
    async () => {
      await clean()
      await many(20)
      const control = (state: 'paused' | 'running') =>
        arena.fleet.operator.call('agents_control', { request_id: randomUUID(), tenant: 'acme', state, why: 'x' })
      granted(await control('paused'))
      const worker = await hello()
      expect(await claim(worker)).toEqual([])
    },
    ['_open_queues', `s.state <> 'running')`, 'false)'],
  )

  const pausedAcme = async () => {
    await clean()
    const id = await one()
    const worker = await hello()
    await claim(worker)
    granted(
      await arena.fleet.operator.call('agents_control', {
        request_id: randomUUID(),
        tenant: 'acme',
        state: 'paused',
        why: 'x',
      }),
    )
    expect(granted(await arena.fleet.operator.call('agents_settle', {})).settled).toBe(true)
    return { id, worker }
  }
  /** Back where it was, with nothing that tells of a failure. */
  const untouched = async () => {
    expect(await arena.sql(`select status, attempts from tms.agent_tasks`)).toEqual([
      { status: 'pending', attempts: 0 },
    ])
    expect(
      await number(
        `(select count(*) from tms.agent_runs) + (select count(*) from tms.dead_letter_queue) + (select count(*) from tms.outbox_events)`,
      ),
    ).toBe(0)
  }
  rail(
    'what fails after a pause has settled goes back',
    async () => {
      const { id, worker } = await pausedAcme()
      await finish(worker, { id, claim: 1, outcome: 'failed', class: 'validation', error: 'x' })
      await untouched()
    },
    ['_end_tasks', `u.outcome in ('completed', 'failed') and (u.agent`, `u.outcome = 'completed' and (u.agent`],
  )
  rail(
    'no step is kept after a pause has settled',
    async () => {
      const { id, worker } = await pausedAcme()
      const step = { worker, id, claim: 1, name: 'pay', result: 1 }
      expect(await arena.fleet.worker.call('tasks_step', step)).toHaveProperty('refused.code', 'PAUSED')
      expect(await number(`select count(*) from tms.task_steps`)).toBe(0)
    },
    ['tasks_step', 'if tms._stopped(t.agent, t.company_id) then', 'if false then'],
  )
  rail(
    'what is reaped after a pause has settled goes back',
    async () => {
      await pausedAcme()
      await arena.sql(`update tms.workers set lease_until = clock_timestamp() - interval '1 minute'`)
      expect(granted(await arena.fleet.worker.call('tasks_reap', {})).reaped).toBe(1)
      await untouched()
    },
    ['tasks_reap', 'tms._stopped(x.agent, x.company_id) as stopped', 'false as stopped'],
  )

  rail(
    'while halted the reaper keeps still',
    async () => {
      await clean()
      const id = await one()
      await claim(await hello())
      await arena.sql(`update tms.workers set lease_until = clock_timestamp() - interval '1 minute'`)
      await halt(arena.fleet)
      try {
        await arena.fleet.worker.call('tasks_reap', {})
        expect(await statusOf(id)).toBe('running')
      } finally {
        await resume(arena.fleet)
      }
    },
    ['tasks_reap', 'if tms._pass() is not null then', 'if false then'],
  )

  rail(
    "a transaction of one tenant that stays open keeps no other's tasks from their end",
    async () => {
      await clean()
      const mine = await one()
      const theirs = await one('demo.one', 'globex')
      const worker = await hello()
      await claim(worker)
      await other.query('begin')
      const tasks = [{ function: 'demo.two' }]
      await ask(other, 'tasks_enqueue', { request_id: randomUUID(), tenant: 'acme', tasks })
      const ended = finish(
        worker,
        { id: mine, claim: 1, outcome: 'completed', effects: { tasks: [{ function: 'demo.two', payload: {} }] } },
        { id: theirs, claim: 1, outcome: 'completed', effects: { events: [{ topic: 'demo.x', payload: {} }] } },
      )
      try {
        await answeredOrWaiting(ended)
        expect(await waitingForLocks()).toBe(0)
      } finally {
        await other.query('rollback')
        expect(await ended).toEqual({ [mine]: 'completed', [theirs]: 'completed' })
      }
    },
    ['_touch_queues', 'k.touched_on = tms._today()', 'false'],
  )

  rail(
    'a claim that comes late takes nothing, and gives nothing back',
    async () => {
      await clean()
      await many(2)
      const worker = await hello()
      const nth = async (n: number) => ask(raw, 'tasks_claim', { worker, limit: 1, nth: n, holds: '' })
      expect((await nth(2))['tasks']).toMatchObject({ claims: '1' })
      expect(await nth(1)).toMatchObject({ overtaken: true, tasks: null })
      expect(await nth(2)).toMatchObject({ overtaken: true, tasks: null })
      expect(await number(`select count(*) from tms.agent_tasks where status = 'running'`)).toBe(1)
    },
    ['tasks_claim', /x\.claims < \(args ->> 'nth'\)::bigint/, 'true'],
  )

  rail(
    'what was lost for more than a month is taken back, with all else',
    async () => {
      await clean()
      const lost = [await one(), await one()]
      await claim(await hello())
      await arena.sql(`update tms.workers set lease_until = clock_timestamp() - interval '1 minute'`)
      await arena.sql(`update tms.agent_tasks set claimed_at = clock_timestamp() - interval '40 days' where id = $1`, [
        lost[0],
      ])
      expect(await arena.fleet.worker.call('tasks_reap', {}).catch(String)).toMatchObject({ reaped: 2 })
    },
    ['_fail_task', /least\((extract\(epoch from clock_timestamp\(\) - t\.claimed_at\) \* 1000), 2147483647\)/, '($1)'],
  )

  test('a queue is not swept away under a task that runs and comes back', async () => {
    const id = await one()
    const worker = await hello()
    await claim(worker)
    await arena.sql(`update tms.queues set touched_on = current_date - 3`)
    granted(await arena.fleet.worker.call('upkeep', {}))
    await finish(worker, { id, claim: 1, outcome: 'failed', class: 'external_api', error: 'x' })
    await until(
      'its backoff is over',
      async () =>
        (await number(
          `select count(*) from tms.agent_tasks where status = 'pending' and next_run_at < clock_timestamp()`,
        )) === 1,
    )
    expect((await claim(worker)).map(({ id }) => id)).toEqual([id])
  })

  test('the same request is answered anew after the resume: a halt is no answer for a day', async () => {
    const hook = { request_id: randomUUID(), tenant: 'acme', tasks: [{ function: 'demo.one' }] }
    await halt(arena.fleet)
    expect(await n8n.call('tasks_enqueue', hook)).toHaveProperty('refused.code', 'FENCED')
    await resume(arena.fleet)
    expect(await n8n.call('tasks_enqueue', hook)).toHaveProperty('ids')
  })
})
