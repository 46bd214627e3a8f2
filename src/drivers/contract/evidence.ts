import type { Entry } from './values.ts'

export const evidenceContract = {} as const satisfies Record<string, Entry>
