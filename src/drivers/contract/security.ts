import type { Entry } from './values.ts'

export const securityContract = {} as const satisfies Record<string, Entry>
