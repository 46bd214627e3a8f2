import type { Attempt } from './attempt.ts'

export const postureAttempts: readonly Attempt[] = []
