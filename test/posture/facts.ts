import type { Facts } from '../../src/posture/facts.ts'
import { parseSlo } from '../../src/posture/slo.ts'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

export const sloPath = join(import.meta.dirname, '../../policies/slo.yaml')
export const shippedText = readFileSync(sloPath, 'utf8')
export const shipped = parseSlo('slo.yaml', shippedText)

type Uptime = Facts['uptime']
export const uptime = (up: number, down: number, unknown = 0): Uptime => ({
  minutes: up + down + unknown,
  up,
  down,
  unknown,
  last_down_at: null,
  kinds: [],
})

const burns = [300, 1800, 3600, 21_600, 259_200]

/** A day on which all went well; tests change what they are about. */
export function goodDay(change: Partial<Facts> = {}): Facts {
  return {
    scope: 'fleet',
    fleet: true,
    from: '2026-11-19T12:00:00.000000Z',
    to: '2026-11-20T12:00:00.000000Z',
    now: '2026-11-20T12:00:00.000000Z',
    installed_at: '2026-01-01T00:00:00.000000Z',
    fence: { halted: false, epoch: 0, safe_mode: false },
    tasks: tasks(),
    outbox: {
      since: '2026-11-19T12:00:00.000000Z',
      samples: '100',
      waiting: '0',
      p50_ms: '10',
      p95_ms: '100',
      avg_ms: '20',
      oldest_waiting_ms: null,
      dead: '0',
    },
    letters: { open: '0', oldest: null },
    replays: { runs: '1', tried: '10', failed: '0', most_items: 10, most_bytes: '100', most_in_a_day: 1 },
    budgets: {
      replay_items: '50',
      replay_bytes: '2097152',
      replay_stop_percent: '20',
      replays_per_five_minutes: '3',
    },
    concurrency: { limit: 150, slots: 20, workers: 1, running: 0 },
    flags: { required: 4, checked: 40, findings: [] },
    uptime: uptime(1440, 0),
    incidents: { p1: 0, p2: 0, p3: 0, p4: 0 },
    drift: { score: '100', at: '2026-11-20T11:00:00.000000Z' },
    backup: { at: '2026-11-20T06:00:00.000000Z' },
    unsealed_seconds: '1.5',
    burn: burns.map((seconds) => ({ seconds, completed: '1000', failed: '0', uptime: uptime(seconds / 60, 0) })),
    ...change,
  }
}

export function tasks(change: Partial<Facts['tasks']> = {}): Facts['tasks'] {
  return {
    from: '2026-11-19T12:00:00.000000Z',
    to: '2026-11-20T12:00:00.000000Z',
    completed: '1000',
    failed: '0',
    retried: '0',
    lost: '0',
    tokens: '0',
    calls: '0',
    cost: '1.5',
    samples: '1000',
    success_percent: '100',
    p50_ms: '64',
    p95_ms: '256',
    p95_above_ms: '215.3',
    error_percent: '18.9',
    timed: '1000',
    traced: '1000',
    traceable: '1000',
    agents: [],
    dead_letters: '0',
    quarantined: '0',
    ...change,
  }
}

/** Nothing ended in it. */
export const noTasks = tasks({
  completed: '0',
  samples: '0',
  cost: '0',
  success_percent: null,
  p50_ms: null,
  p95_ms: null,
  p95_above_ms: null,
  timed: '0',
  traced: '0',
  traceable: '0',
})
