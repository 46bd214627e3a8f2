import type { Attempt } from './attempt.ts'

export const postureAttempts: readonly Attempt[] = [
  { fn: 'posture_facts', args: () => ({}) },
  { fn: 'probe_record', args: () => ({ probes: [] }) },
  {
    fn: 'posture_record',
    args: () => ({
      as_of: '2026-01-01T00:00:00.000000Z',
      verdict: 'unknown',
      score: { low: '0', high: '100', grade: 'F' },
      checks: [{ name: 'walk', state: 'unknown', observed: null, comparison: 'at least', limit: '1' }],
    }),
  },
  { fn: 'posture_state', args: () => ({ limit: 5 }) },
  // Of a breach nobody recorded: refused, after the caller's right to ask was looked at.
  { fn: 'posture_act', args: () => ({ action: 'freeze', check: 'none', observed: '1', limit: '0' }) },
  { fn: 'posture_undo', args: () => ({ id: '0', why: 'the walk' }) },
  { fn: 'posture_actions', args: () => ({ limit: 5 }) },
]
