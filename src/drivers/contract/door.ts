import type { Entry } from './values.ts'

/** The door's part of the contract. */
export const doorContract = {} as const satisfies Record<string, Entry>
