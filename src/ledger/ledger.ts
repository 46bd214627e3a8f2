import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'

export async function ledgerTail(
  driver: Driver,
  { tenant, limit }: { tenant?: string | undefined; limit: number },
): Promise<Contract['ledger_tail']['result']> {
  return granted(await driver.call('ledger_tail', { tenant, limit }))
}

export type LedgerRow = Contract['ledger_show']['result']

export async function showLedgerRow(driver: Driver, seq: string): Promise<LedgerRow> {
  return granted(await driver.call('ledger_show', { seq: rowNumber(seq) }))
}

export type Sealed = {
  readonly sealed: number
  readonly size: string
  /** Rows that wait although this sealed what it could: of transactions that ended meanwhile. Counted up to a thousand. */
  readonly pending: string | null
  /** Somebody else was sealing. */
  readonly busy: boolean
}

/** A second of work on a slow database: nobody waits longer for the latch, and the limit of an API isn't reached. */
const batch = 10_000

/** Seals all that waits. */
export async function sealLedger(
  driver: Driver,
  { everything = false, report }: { everything?: boolean; report?: (sealed: number) => void } = {},
): Promise<Sealed> {
  let sealed = 0
  for (let first = true; ; first = false) {
    const step = granted(
      await driver.call('ledger_seal', { limit: batch, ...(everything && first ? { everything } : {}) }),
    )
    sealed += step.sealed
    report?.(sealed)
    if (!step.more) return { sealed, size: step.size, pending: step.pending, busy: step.busy }
  }
}

/**
 * For whoever judges by the ledger: without a running fleet nobody has sealed since the last action, and that is no fault.
 * Seals what waits where the caller may, and answers why it couldn't, or null. Never fails itself: who looks next is told.
 */
export async function sealBeforeJudging(driver: Driver, report?: (sealed: number) => void): Promise<string | null> {
  try {
    const { operations } = granted(await driver.call('whoami', {}))
    if (!operations.includes('ledger.seal')) return 'your roles may not seal (ledger.seal)'
    const { busy } = await sealLedger(driver, report ? { report } : {})
    return busy ? 'somebody else is sealing' : null
  } catch (error) {
    if (!(error instanceof TmsError)) throw error
    return error.message
  }
}

export type LedgerHead = {
  readonly origin: string
  readonly size: number
  readonly root: string
}

/** The tree as it is, or as it was with `size` rows. */
export async function ledgerHead(driver: Driver, size?: number): Promise<LedgerHead> {
  const head = granted(await driver.call('ledger_head', size === undefined ? {} : { size: String(size) }))
  if (head.origin === null) {
    throw new TmsError({
      code: 'CONFIG_MISSING',
      what: 'this database has no name yet, so its ledger has none',
      why: 'it was never initialised',
      next: ['tms init'],
    })
  }
  if (head.root === null) throw brokenTree()
  return { origin: head.origin, size: Number(head.size), root: head.root }
}

/** Hashes of the tree are gone: nothing that is made from it would be true. */
export function brokenTree(): TmsError {
  return new TmsError({
    code: 'CONFLICT',
    what: "the ledger's tree isn't whole",
    why: 'hashes that were stored when rows were sealed are missing or changed',
    next: ['tms ledger verify'],
  })
}

export function whole(hashes: readonly (string | null)[]): string[] {
  return hashes.map((hash) => {
    if (hash === null) throw brokenTree()
    return hash
  })
}

/** What people type for a place in the ledger. */
export function rowNumber(text: string): string {
  if (/^(0|[1-9][0-9]{0,15})$/.test(text)) return text
  throw new TmsError({
    code: 'USAGE',
    what: `${text} is no row of the ledger.`,
    why: 'Rows are counted from 0; the newest are in the list.',
    next: ['tms ledger tail'],
  })
}
