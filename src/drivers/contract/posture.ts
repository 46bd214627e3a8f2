import type { Entry } from './values.ts'

export const postureContract = {} as const satisfies Record<string, Entry>
