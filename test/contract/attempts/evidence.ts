import type { Attempt } from './attempt.ts'
import { retentionAttempts } from './retention.ts'

export const evidenceAttempts: readonly Attempt[] = [...retentionAttempts]
