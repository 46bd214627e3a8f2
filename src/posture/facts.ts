import type { Contract } from '../drivers/contract.ts'

export type Facts = Contract['posture_facts']['result']

/** What there is to judge. */
export type Measured = {
  readonly facts: Facts
  /** Files of this release that the database hasn't run; null: not known. */
  readonly pendingMigrations: number | null
}
