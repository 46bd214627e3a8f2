import type { Block } from '../ui/blocks.ts'
import type { Guarded, GuardedTable, GuardedTables } from './guard.ts'

const meaning: Record<GuardedTable['state'], string> = {
  guarded: 'guarded',
  unguarded: 'NOT guarded: made after the guard',
  'not always': 'NOT always: its trigger can be skipped',
  incomplete: 'INCOMPLETE: one of its triggers is gone, or is another',
  unchecked: 'NOT checked at the commit: tms doctor says which trigger',
  replicated: 'NOT guarded: a subscription writes to it',
}

export function guardView({ tables }: GuardedTables): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['table', 'part of', 'state'],
      rows: tables.map(({ table, root, state }) => [
        table,
        root,
        { text: meaning[state], tone: state === 'guarded' ? 'good' : 'bad' },
      ]),
      empty: 'No table is guarded: a halt stops the agents, and machines may still write to your tables.',
    },
    {
      kind: 'next',
      commands:
        tables.length === 0
          ? ['tms guard add <table>']
          : [
              ...new Set(
                tables
                  .filter(({ state }) => state !== 'guarded' && state !== 'replicated')
                  .map(({ root, state }) => (state === 'unchecked' ? 'tms doctor' : `tms guard add ${word(root)}`)),
              ),
            ],
    },
  ]
}

export function guardedView({ target, table, tables }: Guarded): readonly Block[] {
  return [
    {
      kind: 'text',
      text: {
        text: `${table} is guarded${tables > 1 ? `, in ${tables} parts` : ''} (${target}).`,
        tone: 'good',
      },
    },
    { kind: 'text', text: 'While the fleet is halted no machine writes to it; in safe mode nobody does.' },
    { kind: 'next', commands: ['tms guard check'] },
  ]
}

/** Names with capitals carry double quotes, which a shell would eat. */
function word(name: string): string {
  return /^[\w.]+$/.test(name) ? name : `'${name.replaceAll("'", `'\\''`)}'`
}
