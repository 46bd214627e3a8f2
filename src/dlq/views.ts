import { moment } from '../agents/views.ts'
import type { Contract } from '../drivers/contract.ts'
import type { Block, Cell } from '../ui/blocks.ts'
import {
  replayWorked,
  type Disposed,
  type Letter,
  type ReplayPlan,
  type ReplayRun,
  type StartedReplay,
  type Stats,
} from './dlq.ts'

const right = (title: string) => ({ title, align: 'right' }) as const

export function lettersView({ letters }: Contract['dlq_list']['result']): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['id', 'tenant', 'function', 'class', 'status', 'since', 'error'],
      rows: letters.map((l) => [
        l.id,
        l.tenant,
        l.function,
        l.class,
        statusCell(l),
        moment(l.created_at),
        l.error ?? '',
      ]),
      empty: 'No dead letters.',
    },
  ]
}

export function letterView(l: Letter): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['dead letter', l.id],
        ['task', l.task],
        ['tenant', l.tenant],
        ['function', l.function],
        ['agent', l.agent],
        ['status', statusCell(l)],
        ...(l.snooze_until === null ? [] : [['snoozed until', moment(l.snooze_until)] as const]),
        ['class', l.class],
        ['error', l.error ?? 'not shown to this role'],
        ['attempts', l.attempts],
        ['since', moment(l.created_at)],
        ['replays', l.replay_task === null ? l.replays : `${l.replays}, the last as task ${l.replay_task}`],
        ...(l.trace_id === null ? [] : [['trace', l.trace_id] as const]),
        ['payload', `${l.bytes} bytes`],
        ['', JSON.stringify(l.payload)],
      ],
    },
    {
      kind: 'next',
      commands: l.status === 'open' ? [`tms dlq replay --tenant ${l.tenant} --ids ${l.id}`] : [],
    },
  ]
}

export function statsView({ counts, replays }: Stats): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['tenant', 'class', 'status', right('letters'), 'oldest'],
      rows: counts.map((c) => [c.tenant, c.class, c.status, c.letters, moment(c.oldest)]),
      empty: 'No dead letters.',
    },
    {
      kind: 'table',
      columns: ['replay', 'at', 'by', 'outcome'],
      rows: replays.map((r) => [`${r.run} ${r.tenant}`, moment(r.at), r.by, outcomeCell(r)]),
      empty: '',
    },
  ]
}

export function disposedView({ action, tenant, ids, until, changed }: Disposed): readonly Block[] {
  const done = action === 'snooze' ? `snoozed until ${moment(until) ?? ''} UTC` : 'discarded'
  const left = ids.length - changed
  return [
    { kind: 'text', text: `${changed} of ${ids.length} ${done}.` },
    ...(left === 0
      ? []
      : [
          {
            kind: 'text',
            text: { text: `${left} were not: they aren't open, or not of tenant ${tenant}.`, tone: 'warn' },
          } as const,
          { kind: 'next', commands: [`tms dlq list --tenant ${tenant}`] } as const,
        ]),
  ]
}

/** The dry run, and the command that does it. */
export function dryRunView(plan: ReplayPlan): readonly Block[] {
  return [
    ...planView(plan),
    { kind: 'text', text: 'Nothing was changed.' },
    { kind: 'next', commands: plan.command === null ? [] : [plan.command] },
  ]
}

/** What would be replayed, what not, and why not. */
export function planView({ tenant, items, skipped, bytes, barred, name }: ReplayPlan): readonly Block[] {
  return [
    {
      kind: 'text',
      text: `Plan ${name}: ${items.length} of tenant ${tenant} to replay (${bytes} bytes), ${skipped.length} left out.`,
    },
    {
      kind: 'table',
      columns: ['id', 'task', 'function', 'class', right('bytes'), right('replays')],
      rows: items.map((item) => [item.id, item.task, item.function, item.class, item.bytes, item.replays]),
      empty: '',
    },
    {
      kind: 'table',
      columns: ['left out because', right('letters'), 'ids'],
      rows: reasons(skipped),
      empty: '',
    },
    ...(barred === null ? [] : [{ kind: 'text', text: { text: `Barred now: ${barred}`, tone: 'bad' } } as const]),
  ]
}

export function startedView({ run, items, tenant, outcome }: StartedReplay): readonly Block[] {
  const worked = replayWorked(outcome)
  return [
    { kind: 'text', text: `Replay ${run}: ${items.length} for ${tenant} queued again.` },
    ...(outcome === null ? [] : [{ kind: 'text', text: outcomeCell(outcome) } as const]),
    { kind: 'next', commands: worked === true ? [] : [`tms dlq stats --tenant ${tenant}`] },
  ]
}

/** `7 of 9 worked, 1 failed, 1 taken back`, and why it was stopped. */
export function outcomeText(run: ReplayRun): string {
  const { items, succeeded, failed, withdrawn, finished_at, stopped_why } = run
  return [
    `${succeeded} of ${items} worked`,
    ...(failed > 0 ? [`${failed} failed`] : []),
    ...(withdrawn > 0 ? [`${withdrawn} taken back`] : []),
    ...(stopped_why === null ? [] : [`STOPPED: ${stopped_why}`]),
    ...(finished_at === null ? ['under way'] : []),
  ].join(', ')
}

function outcomeCell(run: ReplayRun): Cell {
  const worked = replayWorked(run)
  return { text: outcomeText(run), tone: worked === null ? 'strong' : worked ? 'good' : 'bad' }
}

function statusCell({ status }: Pick<Letter, 'status'>): Cell {
  return { text: status, tone: status === 'open' ? 'warn' : status === 'replayed' ? 'good' : 'strong' }
}

/** Hundreds may be left out for one reason: one row each, with the first ids. */
function reasons(skipped: ReplayPlan['skipped']): readonly (readonly Cell[])[] {
  const byReason = new Map<string, ReplayPlan['skipped']>()
  for (const letter of skipped) byReason.set(letter.why, [...(byReason.get(letter.why) ?? []), letter])
  return [...byReason].map(([why, letters]) => [
    why,
    letters.length,
    `${letters
      .slice(0, 5)
      .map(({ id }) => id)
      .join(' ')}${letters.length > 5 ? ' …' : ''}`,
  ])
}
