import type { Contract } from '../drivers/contract.ts'

export type Facts = Contract['posture_facts']['result']

/** What there is to judge. */
export type Measured = {
  readonly facts: Facts
  /** Files of this release that the database hasn't run; null: not known. */
  readonly pendingMigrations: number | null
  /** Why what waits for the ledger's sealer wasn't sealed before this was measured; null: it was, as far as anybody knows. */
  readonly notSealed?: string | null
}
