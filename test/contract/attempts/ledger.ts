import type { Attempt } from './attempt.ts'

const root = 'A'.repeat(43) + '='

export const ledgerAttempts: readonly Attempt[] = [
  { fn: 'ledger_seal', args: () => ({ limit: 10 }) },
  { fn: 'ledger_show', args: () => ({ seq: '0' }) },
  { fn: 'ledger_lines', args: () => ({ from: '0', to: '10' }) },
  { fn: 'ledger_verify', args: () => ({ from: '0', to: '16' }) },
  { fn: 'ledger_verify_inbox', args: () => ({ from: '0', to: '16' }) },
  { fn: 'ledger_verify_records', args: () => ({ from: '0', to: '16' }) },
  { fn: 'ledger_verify_end', args: () => ({}) },
  { fn: 'ledger_checkpoint_add', args: () => ({ note: 'x', size: '1', root, key: 'a'.repeat(64) }) },
  { fn: 'ledger_witness_add', args: () => ({ size: '1', root, line: 'x' }) },
]
