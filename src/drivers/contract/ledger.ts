import type { Entry } from './values.ts'

export const ledgerContract = {} as const satisfies Record<string, Entry>
