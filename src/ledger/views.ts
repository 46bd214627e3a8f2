import type { Contract } from '../drivers/contract.ts'
import type { Block } from '../ui/blocks.ts'

export function ledgerView({ rows }: Contract['ledger_tail']['result']): readonly Block[] {
  return [
    {
      kind: 'table',
      columns: ['at', 'who', 'role', 'did', 'outcome', 'to', 'tenant', 'why'],
      rows: rows.map((row) => [
        row.at.slice(0, 19),
        row.who,
        row.role,
        row.action,
        { text: row.outcome, tone: row.outcome === 'done' ? 'good' : 'warn' },
        row.subject,
        row.tenant ?? '',
        row.why,
      ]),
      empty: 'Nothing happened yet.',
    },
  ]
}
