import type { Attempt } from './attempt.ts'

export const evidenceAttempts: readonly Attempt[] = []
