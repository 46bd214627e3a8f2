import { moment } from '../agents/views.ts'
import type { Block } from '../ui/blocks.ts'
import type { SecurityBlocks, SecurityEvents, Unblocked } from './security.ts'

const right = (title: string) => ({ title, align: 'right' }) as const

export function eventsView({ since, totals, events }: SecurityEvents): readonly Block[] {
  return [
    {
      kind: 'facts',
      rows: [
        ['since', moment(since)],
        ...Object.entries(totals).map(([kind, count]) => [words[kind] ?? kind, count] as const),
      ],
    },
    {
      kind: 'table',
      columns: ['minute', 'what', right('count'), 'from', 'reason'],
      rows: events.map((e) => [
        moment(e.minute),
        e.kind,
        e.count,
        [e.who, e.key, e.address].filter((part) => part !== null).join(' ') || 'not shown',
        [e.tenant, e.function, e.reason].filter((part) => part !== null && part !== '').join(' '),
      ]),
      empty: 'Nothing was tried.',
    },
  ]
}

const words: Readonly<Record<string, string>> = {
  signature: 'wrong signatures',
  nonce: 'repeated requests',
  role: 'denied roles',
  rate: 'over the rate',
  blocked: 'while shut out',
  identity: 'unknown or ended',
  token: 'wrong tokens',
}

export function blocksView({ blocks, all, all_visible }: SecurityBlocks): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['source', 'for', right('count'), right('times'), 'until'],
      rows: blocks.map((b) => [
        b.active ? { text: sourceOf(b), tone: 'warn' } : { text: sourceOf(b), tone: 'dim' },
        b.cause,
        b.count,
        b.times,
        b.lifted_at === null ? moment(b.until) : `lifted by ${b.lifted_by ?? 'somebody'}`,
      ]),
      empty: all_visible
        ? all
          ? 'Nobody was shut out.'
          : 'Nobody is shut out.'
        : 'Not to be seen by members of a tenant.',
    },
    { kind: 'next', commands: blocks.some((b) => b.active) ? ['tms security unblock <source> --why <reason>'] : [] },
  ]
}

function sourceOf({ kind, source, key }: SecurityBlocks['blocks'][number]): string {
  return source ?? (key === null ? kind : `${kind} ${key}`)
}

export function unblockedView({ source, lifted }: Unblocked): readonly Block[] {
  return [
    {
      kind: 'text',
      text: `${source} is let in again (${lifted === 1 ? 'one block' : `${lifted} blocks`}). Doors know within five seconds.`,
    },
  ]
}
