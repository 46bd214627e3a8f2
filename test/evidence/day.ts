import type { DayFacts } from '../../src/evidence/facts.ts'
import type { Check, Judgement } from '../../src/posture/judge.ts'

/** Days as the database might tell of them, for what is made of them without a database. */

const stamp = (quarter: number) =>
  `2026-10-31T${String(Math.floor(quarter / 4)).padStart(2, '0')}:${String((quarter % 4) * 15).padStart(2, '0')}:00.000000Z`

/** A day with work in all but a few of its quarters. */
export function busyDay(): DayFacts {
  const worked = Array.from({ length: 96 }, (_, quarter) => quarter).filter((quarter) => quarter < 30 || quarter > 36)
  const load = (quarter: number) => Math.round(900 + 700 * Math.sin((quarter - 20) / 15))
  const bad = (quarter: number) => quarter >= 60 && quarter <= 63
  return {
    ...emptyDay(),
    runs: {
      completed: '101234',
      failed: '1650',
      retried: '2310',
      lost: '4',
      tokens: '48200310',
      calls: '301220',
      cost: '312.4051',
      samples: '102884',
      success_percent: '98.3962',
      p50_ms: '215.3',
      p95_ms: '1722.2',
      error_percent: '18.9',
      quarters: worked.map((quarter) => ({
        at: stamp(quarter),
        completed: String(load(quarter)),
        failed: bad(quarter) ? '90' : '12',
        success_percent: bad(quarter) ? '93.1' : String(99.4 - (quarter % 5) / 10),
        p95_ms: String(bad(quarter) ? 3100 + quarter : 900 + (quarter % 7) * 110),
      })),
    },
    outbox: {
      samples: '44120',
      waiting: '3',
      dead: '1',
      p50_ms: '320',
      p95_ms: '2210',
      avg_ms: '640',
      oldest_waiting_ms: '8100',
      quarters: worked.map((quarter) => ({
        at: stamp(quarter),
        samples: '460',
        p50_ms: '300',
        p95_ms: String(1500 + (quarter % 9) * 200),
        avg_ms: '610',
      })),
    },
    queue: Array.from({ length: 96 }, (_, quarter) => ({
      at: stamp(quarter),
      waiting: String(bad(quarter) ? 4200 : 40 + ((quarter * 37) % 160)),
      running: '120',
      awaiting_approval: '2',
    })),
    alerts: {
      count: 2,
      rows: [
        {
          id: '17',
          priority: 'P1',
          status: 'ENDED',
          type: 'emergency_stop',
          tenant: null,
          title: 'Fleet halted by hand',
          opened_at: stamp(61),
          ended_at: stamp(63),
        },
        {
          id: '18',
          priority: 'P3',
          status: 'OPEN',
          type: 'invariant',
          tenant: 'acme',
          title: 'Deliveries without an event: ask jane.roe@example.com',
          opened_at: stamp(70),
          ended_at: null,
        },
      ],
    },
    traces: [
      trace('4bf92f3577b34da6a3ce929d0e0e4736', 'invoices.pay', 'failed', '30412'),
      trace('0af7651916cd43dd8448eb211c80319c', 'rates.quote', 'completed', '8120'),
      trace('b7ad6b7169203331a3ce929d0e0e4736', 'rates.quote', 'completed', '210'),
    ],
    spend: {
      count: 3,
      rows: [
        spent('acme', 'invoices', '210.55', '250'),
        spent('globex', 'rates', '88.2', null),
        spent(
          'a-tenant-with-a-key-that-is-as-long-as-keys-may-be-in-this-system',
          'reconcile-carrier-statements-of-the-month',
          '13.6551',
          '20',
        ),
      ],
    },
    audit: {
      rows: '412',
      critical: '96',
      actions: 9,
      counts: [
        ['agents.paused', 'done', '1'],
        ['evidence.manifest', 'done', '1'],
        ['fence.halt', 'done', '1'],
        ['fence.resume', 'done', '1'],
        ['flag.set', 'done', '12'],
        ['flags_set', 'refused', '3'],
        ['runs.digest', 'done', '96'],
        ['task.enqueue', 'done', '296'],
        ['user.grant', 'done', '1'],
      ].map(([action = '', outcome = '', count = '']) => ({ action, outcome, count })),
      listed: Array.from({ length: 44 }, (_, n) => ({
        seq: String(1200 + n * 3),
        at: stamp(n * 2),
        action:
          n === 0 ? 'fence.halt' : n === 1 ? 'fence.resume' : n === 2 ? 'user.grant' : n % 5 ? 'flag.set' : 'flags_set',
        outcome: n > 2 && n % 5 === 0 ? 'refused' : 'done',
        role: n === 4 ? 'autopilot' : 'super_admin',
        who: n === 4 ? 'autopilot' : 'person 1f0c9a2b77de',
        tenant: n % 3 === 0 ? 'acme' : null,
        subject: n === 2 ? null : 'budget.agents.maxConcurrent',
        row_hash: 'ab12'.repeat(16),
        body_sha256: 'cd34'.repeat(16),
        trace_id: null,
      })),
    },
  }
}

function trace(trace_id: string, fn: string, outcome: string, ms: string): DayFacts['traces'][number] {
  return { trace_id, task: '881', agent: fn.split('.')[0] ?? '', function: fn, outcome, ms, at: stamp(62) }
}

function spent(
  tenant: string,
  agent: string,
  cost: string,
  cost_limit: string | null,
): DayFacts['spend']['rows'][number] {
  return { tenant, agent, cost, cost_limit, tokens: '120033', tokens_limit: null, calls: '4400', calls_limit: '5000' }
}

/** A day of which the database knows nothing. */
export function emptyDay(): DayFacts {
  return {
    day: '2026-10-31',
    from: '2026-10-31T00:00:00.000000Z',
    until: '2026-11-01T00:00:00.000000Z',
    as_of: '2026-11-01T00:05:00.123456Z',
    over: true,
    ledger: {
      origin: 'tms.invalid/ledger/6f1b4f0e-9a53-4a2e-8f1e-3a0c2f9f8a11',
      from_seq: '1188',
      tree_size: '1600',
      root_before: 'q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=',
      root_after: 'zc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc0=',
    },
    runs: {
      completed: '0',
      failed: '0',
      retried: '0',
      lost: '0',
      tokens: '0',
      calls: '0',
      cost: '0',
      samples: '0',
      success_percent: null,
      p50_ms: null,
      p95_ms: null,
      error_percent: '18.9',
      quarters: [],
    },
    outbox: {
      samples: '0',
      waiting: '0',
      dead: '0',
      p50_ms: null,
      p95_ms: null,
      avg_ms: null,
      oldest_waiting_ms: null,
      quarters: [],
    },
    queue: [],
    flags: {
      observed_at: '2026-11-01T00:00:00.000000Z',
      catalogue_sha256: 'ef56'.repeat(16),
      tenants: 2,
      flags: [
        flag('autonomy.emergencyStop', 'boolean', false, 'default', false),
        flag('autonomy.mode', 'string', 'FULL', 'global', 'FULL'),
        flag('agents.autonomousEnabled', 'boolean', true, 'global', true),
        flag('obs.otelEnabled', 'boolean', false, 'default', true),
        flag('budget.agents.maxConcurrent', 'integer', 120, 'environment', null),
      ],
      others_count: 1,
      others: [{ key: 'ops.replayEnabled', tenant: 'acme', value: true, percentage: '100', canaries: 0 }],
      findings_count: 1,
      findings: [{ key: 'obs.otelEnabled', tenant: null, observed: false, expected: true }],
    },
    spend: { count: 0, rows: [] },
    alerts: { count: 0, rows: [] },
    traces: [],
    audit: { rows: '0', critical: '0', actions: 0, counts: [], listed: [] },
  }
}

function flag(
  key: string,
  type: string,
  value: string | number | boolean,
  source: DayFacts['flags']['flags'][number]['source'],
  required: string | boolean | null,
): DayFacts['flags']['flags'][number] {
  return { key, type, value, source, required }
}

const judged = (
  name: string,
  group: Check['group'],
  observed: string | null,
  comparison: Check['comparison'],
  limit: string,
  unit: string,
  state: Check['state'],
  why: string | null = null,
): Check => ({
  name,
  group,
  observed,
  comparison,
  limit,
  unit,
  samples: observed === null ? 0 : 102884,
  window: group === 'service' ? { from: '2026-10-31T00:00:00.000000Z', to: '2026-11-01T00:00:00.000000Z' } : 'now',
  source: 'runs that ended tasks',
  state,
  why,
  counts: name !== 'backup_age_hours',
  consequences: [],
})

export const redJudgement: Judgement = {
  verdict: 'red',
  ground: { state: 'measured', why: '102884 tasks, 1440 of 1440 minutes probed' },
  health: {
    low: '77.3',
    high: '87.3',
    grade: 'C',
    components: [
      { name: 'integrity', low: '28.5', high: '28.5', most: 30, known: true, why: 'drift score 95' },
      { name: 'error_rate', low: '16.8', high: '16.8', most: 20, known: true, why: '1650 of 102884 tasks failed' },
      { name: 'latency', low: '9', high: '9', most: 15, known: true, why: 'p95 between 1448 and 1722 ms' },
      { name: 'incidents', low: '18', high: '18', most: 20, known: true, why: 'open: 0 P1, 0 P2, 1 P3' },
      { name: 'backup', low: '0', high: '10', most: 10, known: false, why: 'no backup is on record' },
      { name: 'migrations', low: '5', high: '5', most: 5, known: true, why: 'none pending' },
    ],
  },
  checks: [
    judged(
      'required_flags',
      'flags',
      '1',
      'at most',
      '0',
      'findings',
      'red',
      'obs.otelEnabled of environment production is false and must be true',
    ),
    judged('agents_at_once', 'budgets', '120', 'at most', '150', 'slots', 'green'),
    judged('uptime_percent', 'service', '99.97', 'at least', '99.95', 'percent', 'green'),
    judged('task_success_percent', 'service', '98.396212', 'at least', '98', 'percent', 'green'),
    judged('p95_latency_ms', 'service', '1722.2', 'at most', '2500', 'ms', 'green'),
    judged('outbox_lag_p95_ms', 'service', '2210', 'at most', '5000', 'ms', 'green'),
    judged('cost_per_1000_tasks', 'service', '3.04', 'below', '5', 'dollars', 'green'),
    judged('backup_age_hours', 'watch', null, 'below', '24', 'hours', 'unknown', 'no backup is on record'),
    judged('unsealed_ledger_seconds', 'watch', '2.1', 'at most', '60', 'seconds', 'green'),
    judged(
      'task_success_burn_fast',
      'burn',
      '0.4',
      'at most',
      '14.4',
      'times, over 1h and 5m',
      'green',
      '0.80× over 1h, 0.40× over 5m',
    ),
  ],
}

export const unknownJudgement: Judgement = {
  verdict: 'unknown',
  ground: { state: 'young', why: 'it was installed at 2026-10-31 23:10 UTC, within the window' },
  health: null,
  checks: redJudgement.checks
    .filter(({ state }) => state !== 'red')
    .map((check) => ({ ...check, observed: null, samples: 0, state: 'unknown', why: 'nothing ended in the window' })),
}
