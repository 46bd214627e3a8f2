import type { Attempt } from './attempt.ts'

export const securityAttempts: readonly Attempt[] = [
  { fn: 'door_report', args: () => ({ events: [] }) },
  { fn: 'security_events', args: () => ({ limit: 5 }) },
  { fn: 'security_blocks', args: () => ({ limit: 5 }) },
  { fn: 'security_unblock', args: () => ({ source: 'nobody', why: 'the walk' }) },
  { fn: 'security_ledger_broken', args: () => ({ detail: { found: 'by the walk' } }) },
  { fn: 'notify_status', args: () => ({}) },
  { fn: 'notify_watch', args: () => ({}) },
  { fn: 'notify_target', args: () => ({ target: 'walk' }) },
]
