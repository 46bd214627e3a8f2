import type { Attempt } from './attempt.ts'

export const retentionAttempts: readonly Attempt[] = [
  { fn: 'evidence_expired', args: () => ({ keep: 35, days: ['2020-01-01'] }) },
  {
    fn: 'evidence_tombstone',
    args: () => ({
      keep: 35,
      day: '2020-01-01',
      manifest_sha256: '0'.repeat(64),
      sums_sha256: '0'.repeat(64),
      tombstone: '{}\n',
    }),
  },
]
