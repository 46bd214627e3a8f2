import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { gradeOf, health } from '../../src/posture/health.ts'
import { judge, millionths, number, ratio, verdictOf, type Check, type Comparison } from '../../src/posture/judge.ts'
import type { Facts } from '../../src/posture/facts.ts'
import { sparkline } from '../../src/posture/views.ts'
import { offender } from '../../src/posture/act.ts'
import { goodDay, noTasks, shipped, tasks, uptime } from './facts.ts'

const judged = (change: Partial<Facts> = {}, pendingMigrations: number | null = 0) =>
  judge({ facts: goodDay(change), pendingMigrations }, shipped)
const check = (name: string, change: Partial<Facts> = {}): Check => {
  const found = judged(change).checks.find((one) => one.name === name)
  if (!found) throw new Error(`no check ${name}`)
  return found
}
const named = { name: 'x', group: 'service', source: 'x', window: 'now' } as const

const count = fc.bigInt(0n, 1_000_000n)
const uptimes = fc
  .tuple(fc.nat(1440), fc.nat(1440), fc.nat(1440))
  .map(([up, down, unknown]) => uptime(up, down, unknown))

/** Any facts the contract allows in the places that are judged by samples. */
const anyFacts = fc
  .record({
    completed: count,
    failed: count,
    quarantined: count,
    tried: count,
    traced: count,
    uptime: uptimes,
    lag: fc.option(fc.nat(20_000)),
    drift: fc.option(fc.integer({ min: 0, max: 100 })),
    burn: fc.array(fc.tuple(count, count, uptimes), { minLength: 5, maxLength: 5 }),
  })
  .map((any) => {
    const samples = any.completed + any.failed
    const least = (a: bigint, b: bigint) => String(a < b ? a : b)
    return goodDay({
      tasks: {
        ...(samples === 0n ? noTasks : tasks()),
        completed: String(any.completed),
        failed: String(any.failed),
        samples: String(samples),
        quarantined: least(any.quarantined, samples),
        traceable: String(samples),
        traced: least(any.traced, samples),
      },
      outbox: {
        ...goodDay().outbox,
        samples: any.lag === null ? '0' : '7',
        p95_ms: any.lag === null ? null : String(any.lag),
        avg_ms: any.lag === null ? null : String(any.lag),
      },
      replays: { ...goodDay().replays, tried: String(any.tried), failed: '0' },
      uptime: any.uptime,
      drift: any.drift === null ? null : { score: String(any.drift), at: goodDay().now },
      burn: goodDay().burn.map((span, index) => {
        const [completed = 0n, failed = 0n, minutes = span.uptime] = any.burn[index] ?? []
        return { seconds: span.seconds, completed: String(completed), failed: String(failed), uptime: minutes }
      }),
    })
  })

describe('a judgement', () => {
  test('is green on a good day, and every check says by what', () => {
    const { verdict, checks, ground } = judged()
    expect([verdict, ground.state]).toEqual(['green', 'measured'])
    for (const one of checks)
      expect([one.name, one.observed, one.source !== '', one.samples > 0]).toEqual([
        one.name,
        expect.any(String),
        true,
        true,
      ])
  })

  test('is never green without samples, whatever the facts', () => {
    fc.assert(
      fc.property(anyFacts, (facts) => {
        for (const { name, state, samples, observed } of judge({ facts, pendingMigrations: null }, shipped).checks) {
          if (state !== 'unknown') expect([name, samples > 0, observed !== null]).toEqual([name, true, true])
        }
      }),
    )
  })

  test('is the same for the same facts', () => {
    fc.assert(
      fc.property(anyFacts, (facts) => {
        expect(judge({ facts, pendingMigrations: 1 }, shipped)).toEqual(judge({ facts, pendingMigrations: 1 }, shipped))
      }),
    )
  })

  test('has red before unknown, and unknown before green', () => {
    const states = fc.array(
      fc.record({ state: fc.constantFrom('green', 'red', 'unknown' as const), counts: fc.boolean() }),
    )
    fc.assert(
      fc.property(states, (checks) => {
        const verdict = verdictOf(checks)
        if (checks.some(({ state }) => state === 'red')) expect(verdict).toBe('red')
        else if (checks.length === 0 || checks.some(({ state, counts }) => state === 'unknown' && counts))
          expect(verdict).toBe('unknown')
        else expect(verdict).toBe('green')
      }),
    )
  })
})

describe('a comparison', () => {
  const holds: Record<Comparison, (part: bigint, whole: bigint, limit: bigint) => boolean> = {
    'at least': (part, whole, limit) => part * 100n >= limit * whole,
    'at most': (part, whole, limit) => part * 100n <= limit * whole,
    below: (part, whole, limit) => part * 100n < limit * whole,
  }

  test('of a share is exact at its edge', () => {
    const whole = fc.bigInt(1n, 1_000_000_000_000n)
    fc.assert(
      fc.property(whole, fc.integer({ min: 0, max: 100 }), fc.bigInt(-2n, 2n), (all, limit, off) => {
        const edge = (all * BigInt(limit)) / 100n + off
        const part = edge < 0n ? 0n : edge > all ? all : edge
        for (const comparison of ['at least', 'at most', 'below'] as const) {
          const { state } = ratio(named, part, all, comparison, limit, {})
          expect(state).toBe(holds[comparison](part, all, BigInt(limit)) ? 'green' : 'red')
        }
      }),
    )
  })

  test('never shows a share that looks better than it is', () => {
    fc.assert(
      fc.property(fc.bigInt(0n, 10n ** 9n), fc.bigInt(1n, 10n ** 9n), (a, whole) => {
        const part = a > whole ? whole : a
        const shown = (comparison: Comparison) =>
          millionths(ratio(named, part, whole, comparison, 50, {}).observed ?? '') * whole
        expect(shown('at least')).toBeLessThanOrEqual(part * 100n * 1_000_000n)
        expect(shown('below')).toBeGreaterThanOrEqual(part * 100n * 1_000_000n)
      }),
    )
  })

  test.each([
    ['at least', '85', 'green'],
    ['at least', '84.999999', 'red'],
    ['at most', '85', 'green'],
    ['at most', '85.000001', 'red'],
    ['below', '84.999999', 'green'],
    ['below', '85', 'red'],
  ] as const)('%s 85: %s is %s', (comparison, observed, state) => {
    expect(number({ ...named, unit: 'x' }, observed, comparison, 85, { samples: 1 }).state).toBe(state)
  })

  test('of 98 % success is red one task below it, however many there are', () => {
    const success = (completed: string, failed: string) =>
      check('task_success_percent', {
        tasks: tasks({ completed, failed, samples: String(Number(completed) + Number(failed)) }),
      })
    expect(success('98', '2').state).toBe('green')
    expect(success('9799999', '200001')).toMatchObject({ state: 'red', observed: '97.99999' })
  })

  test('of a percentile in the same bucket as the limit is unknown, not a guess', () => {
    const p95 = (p95_above_ms: string, p95_ms: string) =>
      check('p95_latency_ms', { tasks: tasks({ p95_above_ms, p95_ms }) }).state
    expect([p95('2048', '2435.5'), p95('2435.5', '2896.3'), p95('2896.3', '3444.3'), p95('2500', '2900')]).toEqual([
      'green',
      'unknown',
      'red',
      'red',
    ])
  })
})

describe('uptime', () => {
  test('counts minutes nobody probed neither as up nor as down', () => {
    expect(check('uptime_percent', { uptime: uptime(1440, 0, 0) }).state).toBe('green')
    expect(check('uptime_percent', { uptime: uptime(1300, 0, 140) })).toMatchObject({
      state: 'unknown',
      observed: '100',
      why: 'nobody probed in 140 of 1440 minutes',
    })
    expect(check('uptime_percent', { uptime: uptime(1439, 1, 0) })).toMatchObject({ state: 'red' })
    expect(check('uptime_percent', { uptime: uptime(0, 0, 1440) })).toMatchObject({
      state: 'unknown',
      observed: null,
      samples: 0,
    })
  })
})

describe('nothing measured', () => {
  const idle = {
    tasks: noTasks,
    outbox: { ...goodDay().outbox, samples: '0', p95_ms: null, avg_ms: null },
    burn: goodDay().burn.map((span) => ({ ...span, completed: '0' })),
  }

  test('an idle Sunday is unknown, and says that the system was up', () => {
    const { verdict, ground } = judged(idle)
    expect([verdict, ground]).toEqual([
      'unknown',
      { state: 'idle', why: 'nothing ended in the window, and 1440 of 1440 probed minutes were up' },
    ])
    expect(check('uptime_percent', idle).state).toBe('green')
  })

  test('an hour after the install it is unknown, and says that the window is not covered', () => {
    const young = { ...idle, installed_at: '2026-11-20T11:00:00.000000Z', uptime: uptime(60, 0, 1380) }
    const { verdict, ground } = judged(young)
    expect([verdict, ground.state]).toEqual(['unknown', 'young'])
    expect(check('uptime_percent', young).state).toBe('unknown')
  })

  test('a window nobody watched is another thing again', () => {
    expect(judged({ ...idle, uptime: uptime(0, 0, 1440) }).ground.state).toBe('unwatched')
  })

  test('of what need not happen every day changes no verdict', () => {
    const quiet = { replays: { ...goodDay().replays, runs: '0', tried: '0', most_in_a_day: 0 }, backup: null }
    expect(check('replay_failure_percent', quiet)).toMatchObject({ state: 'unknown', counts: false })
    expect(judged(quiet).verdict).toBe('green')
  })

  test('of the invariants, or a stale scan, keeps it from being green', () => {
    expect(judged({ drift: null }).verdict).toBe('unknown')
    const stale = { drift: { score: '100', at: '2026-11-19T11:59:59.000000Z' } }
    expect([judged(stale).verdict, check('drift_score', stale).observed]).toEqual(['unknown', null])
  })
})

describe('error budgets', () => {
  const burning = (rates: Record<number, number | null>) => {
    const burn = goodDay().burn.map((span) => {
      const failed = rates[span.seconds]
      return failed === undefined
        ? span
        : { ...span, completed: failed === null ? '0' : String(10_000 - failed), failed: String(failed ?? 0) }
    })
    return (pace: string) => check(`task_success_burn_${pace}`, { burn })
  }

  test('burn fast only when both spans burn faster than allowed', () => {
    // 14.4 times 2 % is 28.8 %
    expect(burning({ 3600: 2881, 300: 2881 })('fast')).toMatchObject({ state: 'red', observed: '14.41' })
    expect(burning({ 3600: 2880, 300: 2880 })('fast').state).toBe('green')
    expect(burning({ 3600: 9999, 300: 0 })('fast').state).toBe('green')
    expect(burning({ 3600: 0, 300: 9999 })('fast').state).toBe('green')
  })

  test('are unknown while a span without samples could decide', () => {
    expect(burning({ 3600: 9999, 300: null })('fast').state).toBe('unknown')
    expect(burning({ 3600: 10, 300: null })('fast').state).toBe('green')
    expect(burning({ 259200: 201, 21600: 201 })('slow').state).toBe('red')
  })
})

describe('the health score', () => {
  const score = (change: Partial<Facts> = {}, pending: number | null = 0) =>
    health({ facts: goodDay(change), pendingMigrations: pending }, 86_400)

  test('is a hundred on a good day, and the sum of its components', () => {
    expect(score()).toMatchObject({ low: '100', high: '100', grade: 'A' })
    expect(score().components.reduce((sum, { most }) => sum + most, 0)).toBe(100)
  })

  test.each<[string, Partial<Facts>, string]>([
    ['drift 85', { drift: { score: '85', at: goodDay().now } }, '95.5'],
    ['5 % errors', { tasks: tasks({ completed: '950', failed: '50' }) }, '90'],
    ['10 % errors', { tasks: tasks({ completed: '900', failed: '100' }) }, '80'],
    ['p95 up to 500 ms', { tasks: tasks({ p95_ms: '430.5', p95_above_ms: '362' }) }, '100'],
    ['p95 up to a second', { tasks: tasks({ p95_ms: '861.1', p95_above_ms: '724.1' }) }, '97'],
    ['p95 over 5 s', { tasks: tasks({ p95_ms: '6888.6', p95_above_ms: '5792.6' }) }, '85'],
    ['incidents', { incidents: { p1: 1, p2: 1, p3: 2, p4: 9 } }, '81'],
    ['many incidents', { incidents: { p1: 5, p2: 0, p3: 0, p4: 0 } }, '80'],
    ['a backup of 48 hours', { backup: { at: '2026-11-18T12:00:00.000000Z' } }, '95'],
    ['a backup of 72 hours', { backup: { at: '2026-11-17T12:00:00.000000Z' } }, '90'],
  ])('%s', (_, change, points) => {
    expect([score(change).low, score(change).high]).toEqual([points, points])
  })

  test('is a range as wide as what is unknown, with the grade of its low end', () => {
    expect(score({ drift: null, backup: null }, null)).toMatchObject({ low: '55', high: '100', grade: 'D' })
    expect(score({ tasks: tasks({ p95_ms: '1024', p95_above_ms: '861.1' }) })).toMatchObject({ low: '94', high: '97' })
  })

  test('grades by the edges', () => {
    expect([90, 89.99, 80, 79.99, 60, 59.99, 40, 39.99].map(gradeOf).join('')).toBe('ABBCCDDF')
  })

  test('of a fresh install is no reason for safe mode, a disaster is', () => {
    const fresh = judge(
      { facts: goodDay({ tasks: noTasks, drift: null, backup: null }), pendingMigrations: null },
      shipped,
    )
    expect(fresh.checks.find(({ name }) => name === 'health_score')?.state).toBe('unknown')
    const disaster = {
      drift: { score: '10', at: goodDay().now },
      backup: null,
      incidents: { p1: 2, p2: 0, p3: 0, p4: 0 },
      tasks: tasks({ completed: '10', failed: '990', p95_ms: '6888.6', p95_above_ms: '5792.6' }),
    }
    expect(check('health_score', disaster)).toMatchObject({ state: 'red', consequences: ['safe_mode'] })
  })
})

test('a tenant is judged without what is the fleet’s', () => {
  const { health: score, checks } = judged({ fleet: false, concurrency: null, drift: null, unsealed_seconds: null })
  expect(score).toBeNull()
  expect(checks.map(({ name }) => name)).not.toEqual(expect.arrayContaining(['drift_score']))
  expect(checks.some(({ name }) => name === 'agents_at_once')).toBe(false)
})

test('a flag that is not as required is red and named', () => {
  const findings = [{ key: 'autonomy.mode', scope: 'tenant acme', observed: 'OFF', expected: '"FULL"', why: 'x' }]
  expect(check('required_flags', { flags: { required: 4, checked: 40, findings } })).toMatchObject({
    state: 'red',
    observed: '1',
    why: 'autonomy.mode of tenant acme is "OFF" and must be "FULL"',
  })
  expect(check('required_flags', { flags: { required: 0, checked: 0, findings: [] } }).state).toBe('unknown')
})

test('the agent to blame is the worst of those with samples of their own', () => {
  const agent = (name: string, completed: number, failed: number) => ({
    agent: name,
    completed: String(completed),
    failed: String(failed),
  })
  expect(
    offender(
      { agents: [agent('good', 100, 0), agent('bad', 90, 10), agent('worse', 50, 50), agent('rare', 0, 3)] },
      shipped,
    ),
  ).toBe('worse')
  expect(offender({ agents: [agent('good', 98, 2), agent('rare', 0, 49)] }, shipped)).toBeNull()
})

test('a sparkline has a sign for each look and a gap for what was not seen', () => {
  expect(sparkline([0, null, 5, 10])).toBe('▁·▅█')
  expect(sparkline([3, 3])).toBe('▁▁')
  expect(sparkline([null])).toBe('·')
  expect(sparkline([1, Infinity])).toBe('▁█')
})
