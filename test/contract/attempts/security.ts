import type { Attempt } from './attempt.ts'

export const securityAttempts: readonly Attempt[] = []
