import { keysContract } from './keys.ts'
import type { Entry } from './values.ts'

export const evidenceContract = { ...keysContract } as const satisfies Record<string, Entry>
