import type { Entry } from './values.ts'

export const incidentsContract = {} as const satisfies Record<string, Entry>
