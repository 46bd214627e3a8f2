import type { Attempt } from './attempt.ts'

export const incidentsAttempts: readonly Attempt[] = []
