import type { Attempt } from './attempt.ts'

export const ledgerAttempts: readonly Attempt[] = []
