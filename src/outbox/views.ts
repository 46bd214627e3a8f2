import { moment } from '../agents/views.ts'
import type { Block, Cell, Tone } from '../ui/blocks.ts'
import type { Delivery, Lag, Outbox, Retried } from './outbox.ts'

const right = (title: string) => ({ title, align: 'right' }) as const

export function outboxView({ deliveries, targets }: Outbox): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['delivery', 'status', 'target', 'topic', right('tries'), 'error'],
      rows: deliveries.map((d) => [
        d.id,
        statusCell(d),
        d.target,
        `${d.tenant ?? 'fleet'} ${d.topic}`,
        d.attempts,
        d.error ?? '',
      ]),
      empty: 'No deliveries.',
    },
    {
      kind: 'table',
      columns: ['target', 'kind', 'topics', right('waiting')],
      rows: targets.map((t) => [
        t.paused ? { text: `${t.name} (paused)`, tone: 'warn' } : t.name,
        t.kind,
        t.topics.join(' '),
        t.waiting >= 10_000 ? `${t.waiting}+` : t.waiting,
      ]),
      empty: 'No targets: events go nowhere.',
    },
  ]
}

export function deliveryView(d: Delivery): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['delivery', d.id],
        ['event', d.event],
        ['status', statusCell(d)],
        ['target', d.target],
        ['tenant', d.tenant ?? { text: "none: the product's own", tone: 'dim' }],
        ['topic', d.topic],
        ['tries', d.attempts],
        ...(d.ordering_key === null ? [] : [['in order of', d.ordering_key] as const]),
        ['created', moment(d.created_at)],
        d.delivered_at === null
          ? ['next try', d.status === 'dead' ? 'none' : moment(d.next_at)]
          : ['delivered', moment(d.delivered_at)],
        ...(d.error === null ? [] : [['error', d.error] as const]),
        ...(d.task === null ? [] : [['task', d.task] as const]),
        ['payload', JSON.stringify(d.payload)],
      ],
    },
    {
      kind: 'next',
      commands:
        d.status === 'dead'
          ? [`tms outbox retry ${d.id}${d.tenant === null ? '' : ` --tenant ${d.tenant}`} --why <reason>`]
          : [],
    },
  ]
}

export function retriedView({ tenant, ids, retried }: Retried): readonly Block[] {
  const left = ids.length - retried
  return [
    { kind: 'text', text: `${retried} of ${ids.length} will be tried now.` },
    ...(left === 0
      ? []
      : [
          {
            kind: 'text',
            text: {
              text: `${left} were not: delivered, being sent, of a target that is gone, of an alert that ended meanwhile, or not ${tenant === null ? "the product's own" : `of tenant ${tenant}`}.`,
              tone: 'warn',
            },
          } as const,
        ]),
  ]
}

export function lagView(lag: Lag): readonly Block[] {
  const { verdict, slo, p50_ms, p95_ms, avg_ms, oldest_waiting_ms, waiting, samples, dead, since } = lag
  const tones: Record<Lag['verdict'], Tone> = { ok: 'good', breached: 'bad', unknown: 'warn' }
  const against = (ms: string | null, most: number): Cell =>
    ms === null
      ? 'unknown'
      : { text: `${seconds(ms)} of at most ${most / 1000} s`, tone: Number(ms) <= most ? 'good' : 'bad' }
  return [
    { kind: 'text', text: { text: verdict.toUpperCase(), tone: tones[verdict] } },
    {
      kind: 'facts',
      rows: [
        ['p95', against(p95_ms, slo.p95_ms)],
        ['average', against(avg_ms, slo.avg_ms)],
        ['p50', p50_ms === null ? 'unknown' : seconds(p50_ms)],
        ['oldest', oldest_waiting_ms === null ? 'nothing waits' : `${seconds(oldest_waiting_ms)}, ${waiting} waiting`],
        ['samples', `${samples} since ${moment(since)}`],
        ['dead', { text: dead, tone: dead === '0' ? 'dim' : 'warn' }],
      ],
    },
    { kind: 'next', commands: dead === '0' ? [] : ['tms outbox list --status dead'] },
  ]
}

function statusCell({ status }: Pick<Delivery, 'status'>): Cell {
  return { text: status, tone: status === 'dead' ? 'bad' : status === 'delivered' ? 'good' : 'strong' }
}

function seconds(ms: string): string {
  return `${(Number(ms) / 1000).toFixed(3)} s`
}
