import type { ContractFunction } from '../../../src/drivers/contract.ts'
import type { Driver } from '../../../src/drivers/driver.ts'

/** Rows of tenant acme that the fleet's functions are tried on. */
export type Work = {
  /** Parked, of walk.careful and of finance.pay. */
  readonly careful: string
  readonly payment: string
  readonly letter: string
  readonly delivery: string
}

export type Attempt = {
  readonly fn: ContractFunction
  readonly subject?: string
  readonly args: (work: Work) => Record<string, unknown>
  /** What a super_admin does after a walk in which it was granted, so that the next one finds the fleet running. */
  readonly undo?: (operator: Driver) => Promise<unknown>
}
