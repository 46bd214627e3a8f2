import { once, EventEmitter } from 'node:events'
import * as z from 'zod'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { randomUUID } from 'node:crypto'
import { defineAgent, TaskFailure, type Agent } from '../../src/agents/define.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { createLogger } from '../../src/redaction/logger.ts'
import { startWorker, type Worker } from '../../src/runtime/worker.ts'
import { startTracing } from '../../src/tracing/tracer.ts'
import { sqlBeside, subjects } from '../contract/subjects.ts'
import { policy, readyFleet, type Fleet } from '../fleet/fleet.ts'

const happened = new EventEmitter()
const seen: { fn: string; attempt: number; tenant: string; payload: unknown }[] = []
let stepRuns = 0

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

describe.each(Object.entries(subjects))('a worker through %s', (_, make) => {
  let fleet: Fleet
  let worker: Worker
  /** Every outcome of every task from the start: a fast one ends before whoever enqueued it can listen. */
  const ended = new Map<string, string[]>()

  beforeAll(async () => {
    fleet = await readyFleet(await make(), [policy('demo', { timeout_ms: 1500, approval: [] })])
    worker = await start()
  })
  afterAll(async () => {
    await worker.stop(0)
    await fleet.stop()
  })

  const start = async () =>
    startWorker({
      driver: fleet.worker,
      agents: [demo],
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
      log: createLogger({ write: () => undefined, clock: () => new Date() }),
      fetch,
      now: () => performance.now(),
      pollMs: 100,
      onEnd: ({ task: { id } }, outcome) => ended.set(id, [...(ended.get(id) ?? []), outcome]),
    })
  const ends = async (id: string, times = 1) => {
    await expect.poll(() => ended.get(id)?.length ?? 0, { timeout: 15_000 }).toBeGreaterThanOrEqual(times)
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

  test('the time limit ends a handler, and counts as an attempt', async () => {
    const { id, all } = await outcomes('demo.two', { mode: 'forever' }, 1)
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

  test('whoever is left without a slot ends nothing, gives all back, and starts anew as one worker', async () => {
    const running = once(happened, 'to lose its slot')
    const [id = ''] = await fleet.enqueue('acme', [
      { function: 'demo.two', payload: { mode: 'forever', tag: 'to lose its slot' } },
    ])
    const [context] = (await running) as [{ signal: AbortSignal }]
    const aborted = once(context.signal, 'abort')
    const held = worker.stats().worker
    await fleet.set('budget.agents.maxConcurrent', 0)
    await expect.poll(() => worker.stats().slots, { timeout: 10_000 }).toBe(0)
    // The time limit ends this one, which nobody is told: who has no slot has nothing to say.
    await aborted
    await expect.poll(() => worker.stats().worker, { timeout: 10_000 }).not.toBe(held)
    await expect.poll(async () => (await task(id)).task, { timeout: 10_000 }).toMatchObject({ status: 'pending' })
    await fleet.set('budget.agents.maxConcurrent', 150)
    await ends(id)
    const living = () =>
      sql(
        `select count(*)::int as n from tms.workers where stopped_at is null and lease_until > clock_timestamp() and name = 'w'`,
      )
    // Shorter than a lease: the one that it was before is gone by its own word.
    await expect.poll(living, { timeout: 10_000 }).toEqual([{ n: 1 }])
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
