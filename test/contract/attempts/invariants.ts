import type { Attempt } from './attempt.ts'

const walked = {
  invariant: 'WALKED',
  kind: 'own',
  priority: 'P4',
  title: 'walked',
  owner: 'walk',
  check: 'effects_without_task',
  every_ms: 300_000,
  timeout_ms: 5_000,
  escalate: 'later',
  reads: [],
  writes: [],
  show: [],
  rows_per_scan: null,
  rows_per_violation: null,
  query_sha256: null,
  correction_sha256: null,
  problem: null,
}

export const invariantsAttempts: readonly Attempt[] = [
  { fn: 'invariants_load', args: () => ({ invariants: [walked] }) },
  // One that isn't there when the walk's super_admin hasn't been here yet: a refusal of its own, NOT_FOUND, is no denial.
  { fn: 'invariants_scan', args: () => ({ invariant: 'WALKED' }) },
  { fn: 'invariants_score', args: () => ({ missed: [] }) },
  { fn: 'invariants_list', args: () => ({}) },
  { fn: 'invariants_history', args: () => ({ limit: 5 }) },
]
