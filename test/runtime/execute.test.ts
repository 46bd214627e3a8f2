import * as z from 'zod'
import { describe, expect, test } from 'vitest'
import { defineAgent, type Context } from '../../src/agents/define.ts'
import { runForTest } from '../../src/agents/rehearse.ts'

/** One function that does this. Agents are JavaScript: `context` has no types that would keep it from anything. */
const rehearse = (run: (context: Context & Loose) => unknown) =>
  runForTest(
    defineAgent({
      name: 'demo',
      functions: {
        'demo.one': {
          input: z.looseObject({}),
          output: z.unknown(),
          // True of what runs: only the types are looser.
          run: async (context) => run(context as unknown as Context & Loose),
        },
      },
    }),
    'demo.one',
    {},
  )

const nested = (levels: number): unknown => JSON.parse(`${'['.repeat(levels)}${']'.repeat(levels)}`)

type Loose = {
  publish(topic: unknown, payload: unknown, options?: unknown): void
  enqueue(fn: unknown, payload: unknown, options?: unknown): void
  spend(amount: unknown): Promise<void>
}

describe('what an agent leaves behind', () => {
  test.each<[string, (context: Context & Loose) => unknown, string]>([
    ['a key that is a BigInt', (c) => c.publish('demo.done', {}, { key: 10n }), 'key: a text'],
    ['a key that is too long', (c) => c.publish('demo.done', {}, { key: 'x'.repeat(201) }), 'key: a text'],
    ['an empty order', (c) => c.publish('demo.done', {}, { order: '' }), 'order: a text'],
    ['half a pair in an order', (c) => c.publish('demo.done', {}, { order: 'a\ud83d' }), 'order: a text'],
    ['a topic that is a BigInt', (c) => c.publish(10n, {}), 'the name of a topic'],
    ['a payload with a BigInt', (c) => c.publish('demo.done', { n: 10n }), 'JSON cannot hold'],
    ['a payload nested without end', (c) => c.publish('demo.done', nested(501)), 'nested deeper than 500 levels'],
    ['a payload with half a pair', (c) => c.publish('demo.done', { said: 'a\ud83d' }), 'half a surrogate pair'],
    ['a key of a task with NUL', (c) => c.enqueue('demo.one', {}, { key: 'a\u0000' }), 'key: a text'],
    ['a delay that no clock has', (c) => c.enqueue('demo.one', {}, { delayMs: 1e30 }), 'delayMs: a number'],
    ['a delay that is no number', (c) => c.enqueue('demo.one', {}, { delayMs: NaN }), 'delayMs: a number'],
    ['a priority that is none', (c) => c.enqueue('demo.one', {}, { priority: 'urgent' }), "priority: 'low'"],
  ])('%s fails the task, with its reason', async (_, run, reason) => {
    const { failure } = await rehearse(run)
    expect(failure).toEqual({ class: 'validation', error: expect.stringContaining(reason) })
  })

  test('is what it says, and nothing that it does not know', async () => {
    const { events, tasks, failure } = await rehearse((c) => {
      c.publish('demo.done', { path: 'C:\\u0000' }, { key: '😀'.repeat(200), order: 'a', lane: 'halt', worker: 1 })
      c.enqueue('demo.one', {}, { priority: 'high', delayMs: -3.5 })
    })
    expect(failure).toBeNull()
    const { traceparent, ...event } = events[0] ?? {}
    expect(traceparent).toBeDefined()
    expect(event).toEqual({
      topic: 'demo.done',
      payload: { path: 'C:\\u0000' },
      key: '😀'.repeat(200),
      order: 'a',
    })
    expect(tasks[0]).toMatchObject({ priority: 1, delay_ms: 0 })
  })

  test('lines of log and errors are cleaned of what no table can hold', async () => {
    const { logs, failure } = await rehearse((c) => {
      c.log.info('a\u0000b', { ['k\u0000']: 'v\ud83d', path: 'C:\\u0000' })
      c.log.info('x'.repeat(3999) + '😀 tail')
      throw new Error('read a\u0000b\ud83d')
    })
    expect(logs.map(({ message }) => message)).toEqual(['a\ufffdb', 'x'.repeat(3999) + '\ufffd'])
    expect(logs[0]?.fields).toEqual({ 'k\ufffd': 'v\ufffd', path: 'C:\\u0000' })
    expect(failure?.error).toBe('read a\ufffdb\ufffd')
  })
})

describe('spending', () => {
  test.each<[string, unknown, string]>([
    ['NaN tokens', { tokens: NaN }, 'tokens'],
    ['infinite calls', { calls: Infinity }, 'calls'],
    ['negative tokens', { tokens: -1 }, 'tokens'],
    ['half a token', { tokens: 0.5 }, 'tokens'],
    ['undefined tokens beside calls', { tokens: undefined, calls: 1 }, 'tokens'],
    ['a cost that is no number', { cost: 'NaN' }, 'cost'],
    ['a negative cost', { cost: '-1' }, 'cost'],
    ['an infinite cost', { cost: Infinity }, 'cost'],
    ['nothing', {}, 'one of tokens, calls and cost'],
    ['a misspelled amount', { token: 5 }, 'one of tokens, calls and cost'],
  ])('%s is refused by the name of the field', async (_, amount, name) => {
    const { failure, spent } = await rehearse((c) => c.spend(amount))
    expect(failure).toEqual({ class: 'validation', error: expect.stringContaining(name) })
    expect(spent).toEqual([])
  })

  test('amounts are counted, and nothing else goes along', async () => {
    const { spent } = await rehearse((c) => c.spend({ tokens: 0, calls: 2, cost: '0.0125', worker: '7' }))
    expect(spent).toEqual([{ tokens: 0, calls: 2, cost: '0.0125' }])
  })
})

describe('a step', () => {
  test('of one name runs once within an attempt, at the same time or one after the other', async () => {
    let runs = 0
    const { output } = await rehearse(async (c) => {
      const work = async () => ++runs
      const both = await Promise.all([c.step('pay', work), c.step('pay', work)])
      return [...both, await c.step('pay', work), await c.step('other', work)]
    })
    expect(output).toEqual([1, 1, 1, 2])
  })

  test('without a result is stored as null', async () => {
    const { output, failure } = await rehearse((c) => c.step('send', async () => undefined))
    expect([output, failure]).toEqual([null, null])
  })

  test('that failed may be tried again', async () => {
    let runs = 0
    const work = async () => {
      if (++runs === 1) throw new Error('away')
      return runs
    }
    const { output } = await rehearse(async (c) => c.step('pay', work).catch(() => c.step('pay', work)))
    expect(output).toBe(2)
  })
})
