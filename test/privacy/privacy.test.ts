import { randomUUID } from 'node:crypto'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { granted } from '../../src/drivers/refusal.ts'
import type * as redactionModule from '../../src/redaction/redact.ts'
import { sqlBeside, subjects } from '../contract/subjects.ts'
import { policy, readyFleet, type Fleet } from '../fleet/fleet.ts'
import { until } from '../servers/process.ts'
import { startReceiver } from '../tracing/receiver.ts'
import { carelessAgent, hidden, wayNames, type Hidden } from './planted.ts'
import { find, placesInFiles, placesInTables, texts, type Place } from './search.ts'
import { started } from './started.ts'

/**
 * Agents are careless: what they say and what they fail with holds secrets of every class. Whatever tms writes about
 * their work is searched for them, all of it.
 */

type Redaction = typeof redactionModule

const redaction = vi.hoisted(() => ({ off: false }))
vi.mock('../../src/redaction/redact.ts', async (original) => {
  const real = await original<Redaction>()
  const asIs = (value: unknown): never => JSON.parse(JSON.stringify(value ?? null)) as never
  return {
    redactText: (text: string) => (redaction.off ? text : real.redactText(text)),
    redact: (...[value, options]: Parameters<typeof real.redact>) =>
      redaction.off ? asIs(value) : real.redact(value, options),
    redactError: (error: unknown) => {
      if (!redaction.off) return real.redactError(error)
      // What the real one makes of an error, word for word; anything else as JSON.
      if (!(error instanceof Error)) return { name: 'Error', message: JSON.stringify(error) }
      const { name, message } = error
      return { name, message, ...('code' in error ? { code: String(error.code) } : {}) }
    },
  } satisfies Redaction
})
afterEach(() => {
  redaction.off = false
})

const { embedded, postgres } = subjects

/** Lets the careless agent say all of it in all ways, and gives every text that the run left anywhere. */
async function run(fleet: Fleet, all: readonly Hidden[]): Promise<Place[]> {
  const receiver = await startReceiver()
  await fleet.set('obs.otelEnabled', true)
  await fleet.set('obs.otelSampling', '100')
  granted(
    await fleet.operator.call('outbox_targets_set', {
      request_id: randomUUID(),
      targets: [{ name: 'letters', kind: 'file', topics: ['agent.*'], config: { file: 'letters.jsonl' } }],
    }),
  )
  const working = await started(fleet.worker, [carelessAgent(all)], { collector: receiver.url })
  const tasks = all.flatMap(({ text }, n) =>
    wayNames.map((way) =>
      way === 'input that does not fit'
        ? { function: 'leak.two', payload: { [text]: text } }
        : { function: 'leak.one', payload: { way, n } },
    ),
  )
  for (let at = 0; at < tasks.length; at += 500) await fleet.enqueue('acme', tasks.slice(at, at + 500))
  const ends = () => {
    const { completed, failed } = working.stats()
    return completed + failed >= tasks.length
  }
  await until('all tasks have ended', ends)
  await until('their dead letters are delivered', async () => working.stats().delivered > 0)
  const files = placesInFiles(working.folder)
  const places = [
    ...(await files),
    ...(await placesInTables(sqlBeside(fleet.subject, fleet.operator))),
    ...(await answers(fleet)),
  ]
  await working.stop(0)
  expect(receiver.refusals).toEqual([])
  return [
    ...places,
    ...receiver.bodies.map((body) => ({ where: 'spans', text: body.toString('latin1') })),
    ...working.said.flatMap((entry) => texts(entry).map((text) => ({ where: 'log lines', text }))),
    { where: 'log lines', text: JSON.stringify(working.said) },
  ]
}

/** What operators see of it. */
async function answers({ operator }: Fleet): Promise<Place[]> {
  const { letters } = granted(await operator.call('dlq_list', { tenant: 'acme', limit: 1000 }))
  const { runs } = granted(await operator.call('agents_runs', { tenant: 'acme', limit: 1000 }))
  const { logs } = granted(await operator.call('agents_logs', { tenant: 'acme', limit: 1000 }))
  const { deliveries } = granted(await operator.call('outbox_list', { tenant: 'acme', limit: 1000 }))
  return Object.entries({ letters, runs, logs, deliveries }).flatMap(([where, list]) =>
    texts(list).map((text) => ({ where: `answer ${where}`, text })),
  )
}

/** Where each way of saying it ends up when nothing is redacted: the search sees all of these. */
const everywhere = [
  'agent_logs.fields',
  'agent_logs.message',
  'agent_runs.error',
  'agent_tasks.error',
  'answer letters',
  'answer logs',
  'answer runs',
  'dead_letter_queue.error',
  'file letters.jsonl',
  'outbox_events.payload',
  'spans',
]

describe.each(Object.entries({ embedded, postgres }))('what a run leaves behind on %s', (_, make) => {
  // A breaker at 100 % never opens: nearly all of these tasks fail.
  const functions = ['leak.one', 'leak.two']
  const leak = () => policy('leak', { functions, approval: [], max_attempts: 1, breaker_percent: 100 })

  test('holds no secret that an agent let slip', async () => {
    const fleet = await readyFleet(await make(), [leak()])
    try {
      const seed = Math.floor(Math.random() * 2 ** 31)
      const all = hidden(seed, 40)
      const places = await run(fleet, all)
      expect(places.length).toBeGreaterThan(1000)
      expect(find(all, places).slice(0, 5), `seed ${seed}`).toEqual([])
    } finally {
      await fleet.stop()
    }
  })

  test('holds them everywhere without redaction, so the search would see one', async () => {
    const fleet = await readyFleet(await make(), [leak()])
    try {
      redaction.off = true
      const all = hidden(7, 12)
      const found = find(all, await run(fleet, all))
      expect([...new Set(found.map(({ where }) => where))].sort()).toEqual(expect.arrayContaining(everywhere))
    } finally {
      await fleet.stop()
    }
  })
})
