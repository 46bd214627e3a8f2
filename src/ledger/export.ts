import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import { checkpointCovering, newestCheckpoint, witnessedNote } from './checkpoint.ts'
import { brokenTree, ledgerHead, rowNumber, whole } from './ledger.ts'

/**
 * An export is a text of JSON lines. First the header: which ledger, which rows, and hashes that stand for all rows before
 * them. Then a line for each row. Last the end: hashes that stand for the rows behind, and the checkpoint all of it leads to.
 */
export type ExportHeader = {
  readonly type: 'tms-ledger-export-v1'
  readonly origin: string
  readonly from: number
  readonly to: number
  readonly before: readonly string[]
}
export type ExportEnd = {
  readonly after: readonly string[]
  /** How many rows the hashes and rows lead to the root of. */
  readonly size: number
  readonly root: string
  readonly checkpoint: string | null
}

export type ExportPlan = {
  readonly header: ExportHeader
  readonly end: ExportEnd
}

export type ExportInput = {
  readonly from?: string | undefined
  readonly to?: string | undefined
  /** Leaves out subject, why and body: the line holds their hashes, and can be verified without them. */
  readonly redacted: boolean
  readonly report?: (rows: number) => void
}

/** Without `to`: up to the newest checkpoint, because rows behind it have nobody's signature yet. */
export async function planExport(driver: Driver, input: ExportInput): Promise<ExportPlan> {
  const head = await ledgerHead(driver)
  const newest = await newestCheckpoint(driver)
  const from = Number(rowNumber(input.from ?? '0'))
  const to = input.to === undefined ? Number(newest?.size ?? head.size) : Number(rowNumber(input.to))
  if (from >= to || to > head.size) {
    throw new TmsError({
      code: 'USAGE',
      what: `There are no rows from ${from} to below ${to}.`,
      why: `The ledger has ${head.size} sealed rows, counted from 0.`,
      next: ['tms ledger tail', 'tms ledger checkpoint'],
    })
  }
  const stored = await checkpointCovering(driver, to)
  const size = stored === null ? to : Number(stored.size)
  const cover = granted(await driver.call('ledger_cover', { from: String(from), to: String(to), size: String(size) }))
  const { root } = await ledgerHead(driver, size)
  if (stored !== null && stored.root !== root) throw brokenTree()
  return {
    header: { type: 'tms-ledger-export-v1', origin: head.origin, from, to, before: whole(cover.before) },
    end: { after: whole(cover.after), size, root, checkpoint: stored === null ? null : witnessedNote(stored) },
  }
}

const rowsAtOnce = 5000

export async function* exportText(driver: Driver, plan: ExportPlan, input: ExportInput): AsyncIterable<string> {
  const { from, to } = plan.header
  yield `${JSON.stringify(plan.header)}\n`
  const read = async (at: number) =>
    granted(await driver.call('ledger_lines', { from: String(at), to: String(Math.min(at + rowsAtOnce, to)) })).rows
  // one piece ahead: the database makes the next one while this one is written
  let next = read(from)
  for (let at = from; at < to; at += rowsAtOnce) {
    const rows = await next
    if (rows.length !== Math.min(rowsAtOnce, to - at)) throw brokenTree()
    if (at + rowsAtOnce < to) {
      next = read(at + rowsAtOnce)
      // whoever stops reading leaves it behind
      next.catch(() => undefined)
    }
    let text = ''
    for (const [line, subject, why, body, hash, leaf] of rows) {
      text +=
        line === null
          ? `${JSON.stringify({ hash, leaf })}\n`
          : `${JSON.stringify(input.redacted ? { line } : { line, subject, why, body })}\n`
    }
    yield text
    input.report?.(at + rows.length - from)
  }
  yield `${JSON.stringify(plan.end)}\n`
}
