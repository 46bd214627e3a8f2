import type { Entry } from './values.ts'

export const invariantsContract = {} as const satisfies Record<string, Entry>
