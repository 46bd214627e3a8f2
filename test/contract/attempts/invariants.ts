import type { Attempt } from './attempt.ts'

export const invariantsAttempts: readonly Attempt[] = []
