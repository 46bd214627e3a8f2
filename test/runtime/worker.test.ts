import { once, EventEmitter } from 'node:events'
import * as z from 'zod'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { randomUUID } from 'node:crypto'
import { defineAgent, TaskFailure, type Agent } from '../../src/agents/define.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { TmsError } from '../../src/errors.ts'
import { createLogger } from '../../src/redaction/logger.ts'
import { startWorker, type Worker, type WorkerOptions } from '../../src/runtime/worker.ts'
import { startTracing } from '../../src/tracing/tracer.ts'
import { sqlBeside, subjects } from '../contract/subjects.ts'
import { policy, readyFleet, type Fleet } from '../fleet/fleet.ts'

const happened = new EventEmitter().setMaxListeners(0)
const seen: { fn: string; attempt: number; tenant: string; payload: unknown }[] = []
let stepRuns = 0
/** What handlers of modes `apply` and `manyLogs` wait for, so that they end together. */
let gate: Promise<unknown> = Promise.resolve()
/** What handlers of mode `hang` wait for, whatever their signal says. */
let hanging: Promise<unknown> = Promise.resolve()

const demo: Agent = defineAgent({
  name: 'demo',
  functions: {
    'demo.one': {
      input: z.object({ n: z.number().optional() }).loose(),
      output: z.void(),
      run: async (context, input) => {
        seen.push({ fn: 'demo.one', attempt: context.task.attempt, tenant: context.tenant, payload: input })
      },
    },
    'demo.two': {
      input: z.object({ mode: z.string(), tag: z.string().optional() }),
      output: z.object({ said: z.string() }),
      run: async (context, { mode, tag }) => {
        happened.emit(tag ?? mode, context)
        switch (mode) {
          case 'effects':
            context.publish('demo.done', { ok: true }, { order: 'a' })
            context.enqueue('demo.one', { n: 7 })
            context.log.info('mail to jane.doe@example.com', { password: 'hunter2' })
            return { said: 'yes' }
          case 'step': {
            const value = await context.step('pay', async () => {
              stepRuns++
              return stepRuns
            })
            if (context.task.attempt === 1) throw new TaskFailure('external_api', 'the bank was away')
            return { said: String(value) }
          }
          case 'forever':
            await once(context.signal, 'abort')
            context.signal.throwIfAborted()
            return { said: 'no' }
          case 'badOutput':
            return { said: 'x', more: 1 }
          case 'bigint':
            // @ts-expect-error: in JavaScript nothing keeps an agent from it
            context.publish('demo.done', {}, { key: 10n })
            return { said: 'x' }
          case 'log':
            context.log.info('a\u0000b', { of: 'c\ud83d' })
            context.log.info('x'.repeat(3999) + '😀 tail')
            context.enqueue('demo.one', { n: 7 })
            return { said: 'yes' }
          case 'badLog':
            context.log.info('refused by the table')
            return { said: 'yes' }
          case 'nulError':
            throw new TaskFailure('policy', 'read a\u0000b')
          case 'badError':
            throw new TaskFailure('policy', 'refused by the table')
          case 'manyLogs':
            await gate
            for (let n = 1; n <= 150; n++) context.log.info(`line ${n} of ${tag}`)
            return { said: 'yes' }
          case 'apply':
            await gate
            context.apply('app.effect', { tag: tag ?? '' })
            return { said: 'yes' }
          case 'ward':
            await gate
            context.apply('ward.write', { to: tag ?? '' })
            return { said: 'yes' }
          case 'hang':
            await hanging
            return { said: 'late' }
          case 'nul':
            return { said: 'a\u0000b' }
          case 'secret':
            throw new Error('could not reach https://user:pa55w0rd@example.com/ for card 4111 1111 1111 1111')
        }
        return { said: mode }
      },
    },
  },
})

/** Its time is short. Every other function of these tests has plenty: a machine that stands still for a moment ends none. */
const hasty: Agent = defineAgent({
  name: 'hasty',
  functions: {
    'hasty.run': {
      input: z.object({ mode: z.enum(['forever', 'hang']) }),
      output: z.object({ said: z.string() }),
      run: async (context, { mode }) => {
        if (mode === 'hang') await hanging
        else await once(context.signal, 'abort')
        context.signal.throwIfAborted()
        return { said: 'yes' }
      },
    },
  },
})

/** Quick first, so that its worker claims far ahead; then it waits for `gate`. */
const queued: Agent = defineAgent({
  name: 'queued',
  functions: {
    'queued.run': {
      input: z.object({ quick: z.number() }),
      output: z.void(),
      run: async (_, { quick }) => {
        if (quick === 0) await gate
      },
    },
  },
})

/** The driver with another way to call, or to listen. */
function through(driver: Driver, other: Partial<Pick<Driver, 'call' | 'listen'>>): Driver {
  return new Proxy(driver, {
    get(target, name) {
      if (Object.hasOwn(other, name)) return Reflect.get(other, name) as unknown
      const value: unknown = Reflect.get(target, name)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}

/** What a new release brings: a worker of the old one has the first function only. */
const release = { input: z.object({}), output: z.void(), run: async () => undefined }
const before: Agent = defineAgent({ name: 'release', functions: { 'release.old': release } })
const after: Agent = defineAgent({
  name: 'release',
  functions: { 'release.old': release, 'release.new': release },
})

function deferred(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = () => {}
  const promise = new Promise<void>((done) => (resolve = done))
  return { promise, resolve }
}

describe.each(Object.entries(subjects))('a worker through %s', (_, make) => {
  let fleet: Fleet
  let worker: Worker
  const logged: string[] = []
  /** Every outcome of every task from the start: a fast one ends before whoever enqueued it can listen. */
  const ended = new Map<string, string[]>()

  beforeAll(async () => {
    fleet = await readyFleet(await make(), [
      policy('demo', { timeout_ms: 600_000, approval: [], apply: ['app.effect', 'ward.write'] }),
      policy('hasty', { functions: ['hasty.run'], timeout_ms: 1500, approval: [], max_attempts: 100 }),
      policy('queued', { functions: ['queued.run'], timeout_ms: 600_000, approval: [] }),
      policy('release', { functions: ['release.old', 'release.new'], approval: [] }),
    ])
    worker = await start()
  })
  afterAll(async () => {
    await worker.stop(0)
    await fleet.stop()
  })

  const start = async (other: Partial<WorkerOptions> = {}) =>
    startWorker({
      driver: fleet.worker,
      agents: [demo, hasty],
      name: 'w',
      host: 'test',
      pid: process.pid,
      slots: 20,
      tracer: await startTracing({
        enabled: false,
        samplePercent: 0,
        endpoint: null,
        headers: {},
        serviceName: 'tms',
        serviceVersion: '0',
        environment: 'test',
        redact: (v) => v,
        fetchTimeoutMs: 1000,
      }),
      log: createLogger({ write: ({ message }) => logged.push(message), clock: () => new Date() }),
      fetch,
      now: () => performance.now(),
      pollMs: 100,
      onEnd: ({ task: { id } }, outcome) => ended.set(id, [...(ended.get(id) ?? []), outcome]),
      ...other,
    })
  const ends = async (id: string, times = 1) => {
    await expect.poll(() => ended.get(id)?.length ?? 0).toBeGreaterThanOrEqual(times)
    return (ended.get(id) ?? []).slice(0, times)
  }
  const sql = (text: string) => sqlBeside(fleet.subject, fleet.operator)(text)
  /** Enqueues one task and waits for how it ends. */
  const outcomes = async (fn: string, payload: Record<string, string | number>, times = 1) => {
    const [id = ''] = await fleet.enqueue('acme', [{ function: fn, payload }])
    return { id, all: await ends(id, times) }
  }
  const task = async (id: string) => granted(await fleet.operator.call('agents_runs', { task: id, limit: 10 }))

  test('it runs what is enqueued, for the tenant it belongs to', async () => {
    seen.length = 0
    const ids = await fleet.enqueue(
      'globex',
      Array.from({ length: 50 }, (_, n) => ({ function: 'demo.one', payload: { n } })),
    )
    await Promise.all(ids.map((id) => ends(id)))
    expect(seen.map(({ payload }) => (payload as { n: number }).n).sort((a, b) => a - b)).toEqual(ids.map((_, n) => n))
    expect(new Set(seen.map(({ tenant }) => tenant))).toEqual(new Set(['globex']))
  })

  test('effects, output and logs arrive with the end; logs are redacted', async () => {
    const { id, all } = await outcomes('demo.two', { mode: 'effects' })
    expect(all).toEqual(['completed'])
    expect((await task(id)).task).toMatchObject({ status: 'completed', output: { said: 'yes' } })
    expect((await task(id)).runs[0]?.trace_id).toMatch(/^[0-9a-f]{32}$/)
    const { logs } = granted(await fleet.operator.call('agents_logs', { task: id, limit: 5 }))
    expect(logs).toHaveLength(1)
    expect(JSON.stringify(logs)).not.toMatch(/jane|hunter2/)
  })

  test('a retry gets the stored result of a step', async () => {
    stepRuns = 0
    const { id, all } = await outcomes('demo.two', { mode: 'step' }, 2)
    expect(all).toEqual(['retry', 'completed'])
    expect((await task(id)).task?.output).toEqual({ said: '1' })
    expect(stepRuns).toBe(1)
  })

  test.each([
    ['an input that does not fit', 'demo.two', { wrong: 1 }, 'failed'],
    ['an output that jsonb cannot hold', 'demo.two', { mode: 'nul' }, 'failed'],
  ])('%s is class validation and is not retried', async (_, fn, payload, outcome) => {
    const { id, all } = await outcomes(fn, payload)
    expect(all).toEqual([outcome])
    expect((await task(id)).task?.class).toBe('validation')
  })

  test('an error that names secrets is stored without them', async () => {
    const { id, all } = await outcomes('demo.two', { mode: 'secret' }, 3)
    expect(all).toEqual(['retry', 'retry', 'quarantined'])
    const { runs } = await task(id)
    expect(runs).toHaveLength(3)
    expect(JSON.stringify(runs)).not.toMatch(/pa55w0rd|4111/)
    expect(runs[0]?.error).toContain('could not reach')
  })

  test('an option that JSON cannot hold fails its own task, and the worker goes on', async () => {
    const { id, all } = await outcomes('demo.two', { mode: 'bigint' })
    expect(all).toEqual(['failed'])
    expect((await task(id)).task).toMatchObject({ class: 'validation', error: expect.stringContaining('key: a text') })
    expect((await outcomes('demo.one', { n: 1 })).all).toEqual(['completed'])
  })

  test('a line of log that no table can hold is cleaned, and costs its task nothing', async () => {
    const { id, all } = await outcomes('demo.two', { mode: 'log' })
    expect(all).toEqual(['completed'])
    const { logs } = granted(await fleet.operator.call('agents_logs', { task: id, limit: 5 }))
    expect(logs.map(({ message }) => message).sort()).toEqual(['a\ufffdb', 'x'.repeat(3999) + '\ufffd'])
  })

  test('a task whose log the database refuses is ended without it', async () => {
    await sql(`alter table tms.agent_logs add constraint no_such_line check (message <> 'refused by the table')`)
    const { id, all } = await outcomes('demo.two', { mode: 'badLog' })
    await sql('alter table tms.agent_logs drop constraint no_such_line')
    expect(all).toEqual(['completed'])
    expect((await task(id)).task?.output).toEqual({ said: 'yes' })
  })

  test('an error with NUL is recorded', async () => {
    const { id, all } = await outcomes('demo.two', { mode: 'nulError' })
    expect(all).toEqual(['failed'])
    expect((await task(id)).task).toMatchObject({ class: 'policy', error: 'read a\ufffdb' })
  })

  test('a failure that the database refuses is recorded with other words', async () => {
    await sql(`alter table tms.agent_runs add constraint no_such_error check (error <> 'refused by the table')`)
    const { id, all } = await outcomes('demo.two', { mode: 'badError' })
    await sql('alter table tms.agent_runs drop constraint no_such_error')
    expect(all).toEqual(['failed'])
    expect((await task(id)).task).toMatchObject({
      class: 'policy',
      error: 'the database cannot take what it failed with',
    })
  })

  test('one task whose effects break the commit fails alone; those that end with it are completed', async () => {
    await sql(`
      create schema app;
      grant usage on schema app to public;
      create table app.effects (tag text);
      create function app.effect(args jsonb) returns void language sql security definer set search_path = pg_catalog, pg_temp
        as 'insert into app.effects select args ->> ''tag''';
      create function app.refuse() returns trigger language plpgsql as $$ begin
        if new.tag = 'poison' then raise exception 'not this one'; end if;
        return null;
      end $$;
      create constraint trigger refuse after insert on app.effects deferrable initially deferred for each row execute function app.refuse()`)
    const tags = ['a', 'poison', 'b', 'c']
    const { promise, resolve } = deferred()
    gate = promise
    const begun = Promise.all(tags.map((tag) => once(happened, tag)))
    const ids = await fleet.enqueue(
      'acme',
      tags.map((tag) => ({ function: 'demo.two', payload: { mode: 'apply', tag } })),
    )
    await begun
    resolve()
    const all = await Promise.all(ids.map((id) => ends(id)))
    // From Postgres 18 on its constraint is asked before the commit, and is the failure of an apply like any other.
    const [{ asked } = {}] = await sql(`select current_setting('server_version_num')::integer >= 180000 as asked`)
    expect(all.flat()).toEqual(['completed', asked === true ? 'retry' : 'failed', 'completed', 'completed'])
    expect((await task(ids[1] ?? '')).runs.at(-1)?.error).toBe(
      asked === true ? 'apply app.effect failed: SQLSTATE P0001' : 'the database cannot take what it did',
    )
    expect(await sql('select tag from app.effects order by 1')).toEqual([{ tag: 'a' }, { tag: 'b' }, { tag: 'c' }])
  })

  test('tasks that end together keep all lines of their logs', async () => {
    const tags = Array.from({ length: 15 }, (_, n) => `talker ${n}`)
    const { promise, resolve } = deferred()
    gate = promise
    const begun = Promise.all(tags.map((tag) => once(happened, tag)))
    const ids = await fleet.enqueue(
      'acme',
      tags.map((tag) => ({ function: 'demo.two', payload: { mode: 'manyLogs', tag } })),
    )
    await begun
    resolve()
    await Promise.all(ids.map((id) => ends(id)))
    const [{ n } = {}] = await sql(`select count(*)::integer as n from tms.agent_logs where task_id in (${ids.join()})`)
    expect(n).toBe(15 * 150)
  })

  test.each(['the worker hears of it', 'the driver asks again'])(
    'what a claim brought whose answer got lost is claimed anew, unspent, and what is held stays: %s',
    async (how) => {
      const { promise, resolve } = deferred()
      gate = promise
      let claims = 0
      const call: Driver['call'] = async (fn, args, options) => {
        const answer = await fleet.worker.call(fn, args, options)
        // the second one: by then it holds a task of the first
        if (fn !== 'tasks_claim' || (answer as { tasks: unknown[] }).tasks.length === 0 || ++claims !== 2) return answer
        if (how === 'the driver asks again') return fleet.worker.call(fn, args, options)
        throw new TmsError({
          code: 'DB_UNREACHABLE',
          what: 'the connection is gone',
          why: 'the test says so',
          next: ['x'],
        })
      }
      const one = await start({ driver: through(fleet.worker, { call }), agents: [queued], name: 'unlucky', slots: 10 })
      const [first = ''] = await fleet.enqueue('acme', [{ function: 'queued.run', payload: { quick: 0 } }])
      await expect.poll(() => one.stats().running).toBe(1)
      const [second = ''] = await fleet.enqueue('acme', [{ function: 'queued.run', payload: { quick: 0 } }])
      await expect.poll(() => one.stats().running).toBe(2)
      expect(claims).toBe(3)
      resolve()
      for (const id of [first, second]) {
        await expect.poll(() => ended.get(id)).toEqual(['completed'])
        expect((await task(id)).task).toMatchObject({ status: 'completed', attempts: 1 })
      }
      await one.stop(0)
    },
  )

  test('what waits long in a worker goes back unspent, and no more is claimed than can run', async () => {
    const { promise, resolve } = deferred()
    gate = promise
    const quick = Array.from({ length: 300 }, () => ({ function: 'queued.run', payload: { quick: 1 } }))
    const slow = Array.from({ length: 40 }, () => ({ function: 'queued.run', payload: { quick: 0 } }))
    let later = 0
    const one = await start({ agents: [queued], name: 'queued', slots: 1, now: () => performance.now() + later })
    await fleet.enqueue('acme', quick)
    const ids = await fleet.enqueue('acme', slow)
    const states = () =>
      sql(
        `select status, attempts, count(*)::integer as n from tms.agent_tasks where id in (${ids.join()}) group by 1, 2 order by 1`,
      )
    try {
      await expect.poll(() => one.stats().waiting).toBeGreaterThan(3)
      later = 5000
      await expect.poll(states).toEqual([
        { status: 'pending', attempts: 0, n: 39 },
        { status: 'running', attempts: 1, n: 1 },
      ])
    } finally {
      resolve()
    }
    await Promise.all(ids.map(async (id) => expect.poll(() => ended.get(id)?.at(-1)).toBe('completed')))
    expect(await states()).toEqual([{ status: 'completed', attempts: 1, n: 40 }])
    await one.stop(0)
  })

  test('who has no code for what comes lets a second pass before it takes more', async () => {
    const brought: number[] = []
    const call: Driver['call'] = async (fn, ...rest) => {
      const answer = await fleet.worker.call(fn, ...rest)
      // The cast is true because of the function's name.
      if (fn === 'tasks_claim' && ((answer as { tasks?: unknown[] }).tasks ?? []).length > 0)
        brought.push(performance.now())
      return answer
    }
    const ids = await fleet.enqueue(
      'acme',
      Array.from({ length: 20 }, () => ({ function: 'release.new' })),
    )
    const one = await start({ driver: through(fleet.worker, { call }), agents: [before], name: 'poor', slots: 2 })
    await expect.poll(() => brought.length, { timeout: 30_000 }).toBeGreaterThanOrEqual(3)
    await one.stop(0)
    const [first = 0, second = 0, third = 0] = brought
    expect(Math.min(second - first, third - second)).toBeGreaterThan(990)
    await sql(`delete from tms.agent_tasks where id in (${ids.join()})`)
  })

  test('signals without end, which any login can send, do not stop the work', async () => {
    const hearing: (() => void)[] = []
    const listen: Driver['listen'] = (channel, heard) => {
      if (channel === 'control') hearing.push(() => heard({ channel }))
      return fleet.worker.listen(channel, heard)
    }
    const driver = through(fleet.worker, { listen })
    const one = await start({ driver, agents: [queued], name: 'flooded' })
    expect(hearing).toHaveLength(1)
    let over = false
    const flood = (): void => {
      if (over) return
      for (const heard of hearing) heard()
      setImmediate(flood)
    }
    flood()
    try {
      const ids = await fleet.enqueue(
        'acme',
        Array.from({ length: 5 }, () => ({ function: 'queued.run', payload: { quick: 1 } })),
      )
      for (const id of ids) await expect.poll(() => ended.get(id)?.at(-1), { timeout: 20_000 }).toBe('completed')
    } finally {
      over = true
      await one.stop(0)
    }
  })

  test('a handler that ignores its signal loses its task and its slot, and what it does later is nothing', async () => {
    const { promise, resolve } = deferred()
    hanging = promise
    const [id = ''] = await fleet.enqueue('acme', [{ function: 'hasty.run', payload: { mode: 'hang' } }])
    await expect.poll(() => ended.get(id)).toEqual(['retry'])
    expect((await task(id)).runs.at(-1)).toMatchObject({ outcome: 'retried', class: 'timeout' })
    expect(logged).toContainEqual(expect.stringContaining('hasty.run ignores its signal'))
    resolve()
    // The second attempt finds the way free and completes; the first one's promise settles and ends nothing.
    expect(await ends(id, 2)).toEqual(['retry', 'completed'])
    await expect.poll(() => worker.stats().running).toBe(0)
    expect((await task(id)).runs.map(({ outcome }) => outcome).sort()).toEqual(['completed', 'retried'])
  })

  test('the time limit ends a handler, and counts as an attempt', async () => {
    const { id, all } = await outcomes('hasty.run', { mode: 'forever' })
    expect(all).toEqual(['retry'])
    expect((await task(id)).runs[0]).toMatchObject({ outcome: 'retried', class: 'timeout' })
  })

  test('a halt aborts what runs and is acknowledged; after the resume the work is done without a lost attempt', async () => {
    const running = once(happened, 'to be halted')
    const [id = ''] = await fleet.enqueue('globex', [
      { function: 'demo.two', payload: { mode: 'forever', tag: 'to be halted' } },
    ])
    const [context] = (await running) as [{ signal: AbortSignal }]
    const aborted = once(context.signal, 'abort')
    const halt = granted(await fleet.operator.call('fence_halt', { why: 'test' }))
    expect(halt.fenced).toBe(true)
    await aborted
    expect(context.signal.reason).toBe('halted')
    await expect
      .poll(async () => {
        const { halts } = granted(await fleet.operator.call('fence_state', {}))
        return halts[0]?.acknowledged.length
      })
      .toBe(1)
    expect((await task(id)).task).toMatchObject({ status: 'running' })
    for (const step of ['prepare', 'lift'] as const) {
      granted(await fleet.operator.call('fence_resume', { request_id: randomUUID(), step, why: 'over' }))
    }
    expect(await ends(id)).toEqual(['returned'])
  })

  test('in safe mode what writes to a guarded table waits; what ends with it and what runs beside it goes on', async () => {
    await sql(`
      create schema ward;
      grant usage on schema ward to public;
      create table ward.guarded (n integer);
      create table ward.free (n text);
      do $$ begin perform tms.guard_table('ward.guarded'); end $$;
      create function ward.later() returns trigger language plpgsql security definer as $$ begin
        insert into ward.guarded values (2);
        return null;
      end $$;
      create constraint trigger later after insert on ward.free deferrable initially deferred
        for each row when (new.n = 'guarded later') execute function ward.later();
      create function ward.write(args jsonb) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$ begin
        if args ->> 'to' = 'guarded' then insert into ward.guarded values (1); else insert into ward.free values (args ->> 'to'); end if;
      end $$`)
    const others = deferred()
    hanging = others.promise
    const beside = once(happened, 'beside')
    const [other = ''] = await fleet.enqueue('globex', [
      { function: 'demo.two', payload: { mode: 'hang', tag: 'beside' } },
    ])
    const [context] = (await beside) as [{ signal: AbortSignal }]
    granted(await fleet.operator.call('safe_mode_on', { why: 'test' }))
    const tags = ['guarded', 'free', 'guarded later']
    const { promise, resolve } = deferred()
    gate = promise
    const begun = Promise.all(tags.map((tag) => once(happened, tag)))
    const ids = await fleet.enqueue(
      'acme',
      tags.map((tag) => ({ function: 'demo.two', payload: { mode: 'ward', tag } })),
    )
    await begun
    resolve()
    try {
      expect((await Promise.all(ids.map((id) => ends(id)))).flat()).toEqual(['returned', 'completed', 'returned'])
      expect(context.signal.aborted).toBe(false)
      expect(worker.stats().halted).toBe(false)
      for (const id of [ids[0] ?? '', ids[2] ?? '']) {
        const { task: waits, runs } = await task(id)
        expect(waits).toMatchObject({ status: 'pending', attempts: 0, error: expect.stringContaining('safe mode') })
        // no run: nothing was tried that counts
        expect(runs).toEqual([])
        expect(
          await sql(`select next_run_at > claimed_at + interval '29 s' as later from tms.agent_tasks where id = ${id}`),
        ).toEqual([{ later: true }])
      }
      expect(logged.filter((line) => line.includes('safe mode'))).toHaveLength(2)
    } finally {
      granted(
        await fleet.operator.call('safe_mode_off', {
          request_id: randomUUID(),
          override_token_sha256: 'ab'.repeat(32),
          why: 'over',
        }),
      )
    }
    await sql(
      `update tms.agent_tasks set next_run_at = clock_timestamp() where status = 'pending' and id in (${ids.join()})`,
    )
    for (const id of [ids[0] ?? '', ids[2] ?? '']) expect(await ends(id, 2)).toEqual(['returned', 'completed'])
    expect(await sql('select n from ward.guarded order by 1')).toEqual([{ n: 1 }, { n: 2 }])
    expect((await task(ids[0] ?? '')).task).toMatchObject({ status: 'completed', attempts: 1, error: null })
    others.resolve()
    expect(await ends(other)).toEqual(['completed'])
  })

  test('a function that this code does not have waits for a worker that has it, and is told of once', async () => {
    logged.length = 0
    const one = await start({ agents: [before], name: 'before' })
    const ids = await fleet.enqueue('acme', [
      { function: 'release.new' },
      { function: 'release.old' },
      { function: 'release.new' },
    ])
    expect((await Promise.all(ids.map((id) => ends(id)))).flat()).toEqual(['returned', 'completed', 'returned'])
    await one.stop(0)
    const { task: waits, runs } = await task(ids[0] ?? '')
    expect(waits).toMatchObject({ status: 'pending', attempts: 0, error: 'no code for release.new here' })
    expect(runs).toEqual([])
    expect(logged.filter((line) => line.includes('release.new'))).toHaveLength(1)
    expect(
      await sql(
        `select count(*)::integer as n from tms.agent_tasks where id in (${ids.join()}) and next_run_at > claimed_at + interval '9 s'`,
      ),
    ).toEqual([{ n: 2 }])
    await sql(
      `update tms.agent_tasks set next_run_at = clock_timestamp() where status = 'pending' and id in (${ids.join()})`,
    )
    const two = await start({ agents: [after], name: 'after' })
    for (const id of [ids[0] ?? '', ids[2] ?? '']) expect(await ends(id, 2)).toEqual(['returned', 'completed'])
    await two.stop(0)
  })

  test('whoever is left without a slot ends nothing, gives all back, and starts anew as one worker', async () => {
    const { promise, resolve } = deferred()
    hanging = promise
    const running = once(happened, 'to lose its slot')
    const [id = ''] = await fleet.enqueue('acme', [
      { function: 'demo.two', payload: { mode: 'hang', tag: 'to lose its slot' } },
    ])
    await running
    const held = worker.stats().worker
    await fleet.set('budget.agents.maxConcurrent', 0)
    await expect.poll(() => worker.stats().slots).toBe(0)
    // It comes to its end, which nobody is told: who has no slot has nothing to say.
    resolve()
    await expect.poll(() => worker.stats().worker).not.toBe(held)
    await expect.poll(async () => (await task(id)).task).toMatchObject({ status: 'pending' })
    await fleet.set('budget.agents.maxConcurrent', 150)
    await ends(id)
    const living = () =>
      sql(
        `select count(*)::int as n from tms.workers where stopped_at is null and lease_until > clock_timestamp() and name = 'w'`,
      )
    // Shorter than a lease: the one that it was before is gone by its own word.
    await expect.poll(living).toEqual([{ n: 1 }])
  })

  test('stopping hands back what runs, without an attempt spent', async () => {
    const running = once(happened, 'to be stopped')
    const [id = ''] = await fleet.enqueue('acme', [
      { function: 'demo.two', payload: { mode: 'forever', tag: 'to be stopped' } },
    ])
    await running
    await worker.stop(50)
    const { task: after } = await task(id)
    expect(after?.status).toBe('pending')
    worker = await start()
  })
})
