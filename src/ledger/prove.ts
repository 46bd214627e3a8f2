import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import { fromBase64, sameBytes } from '../proof/bytes.ts'
import { verifyConsistency, verifyInclusion } from '../proof/merkle.ts'
import { parseCheckpoint, parseNote } from '../proof/note.ts'
import { formatTlogProof, noteIn } from '../proof/tlog-proof.ts'
import { checkpointCovering, newestCheckpoint, proven, readCheckpoint, witnessedNote } from './checkpoint.ts'
import { formatConsistency } from '../proof/consistency.ts'
import { brokenTree, ledgerHead, rowNumber, whole } from './ledger.ts'

export type Proof = {
  readonly kind: 'inclusion' | 'consistency'
  /** What the file says. */
  readonly text: string
  readonly size: number
}

/** That row `seq` is in the ledger that a checkpoint speaks of: a file that is checked without the ledger. */
export async function proveRow(driver: Driver, seq: string): Promise<Proof> {
  const index = Number(rowNumber(seq))
  const stored = await checkpointCovering(driver, index + 1)
  if (stored === null) throw await notCovered(driver, index)
  const checkpoint = witnessedNote(stored)
  const size = Number(stored.size)
  const root = parseCheckpoint(parseNote(checkpoint).text).root
  const answer = granted(await driver.call('ledger_proof', { index: seq, size: stored.size }))
  const hashes = whole(answer.hashes).map((hash) => fromBase64(hash, 32))
  const [leaf = ''] = whole([answer.leaf])
  // Nothing is handed out that wouldn't be accepted.
  if (!verifyInclusion({ index, size, leaf: fromBase64(leaf, 32), root, proof: hashes })) throw brokenTree()
  return { kind: 'inclusion', text: formatTlogProof({ index, hashes, checkpoint }), size }
}

async function notCovered(driver: Driver, index: number): Promise<TmsError> {
  const { size } = await ledgerHead(driver)
  if (index >= size) {
    return new TmsError({
      code: 'NOT_FOUND',
      what: `there is no row ${index}`,
      why: `the ledger has ${size} sealed rows`,
      next: ['tms ledger tail', 'tms ledger seal'],
    })
  }
  return new TmsError({
    code: 'NO_DATA',
    what: `no checkpoint covers row ${index} yet`,
    why: 'a proof leads to a signed checkpoint, and the newest is older than this row',
    next: ['tms ledger checkpoint', `tms ledger prove ${index}`],
  })
}

/** That the ledger of this checkpoint, else of the newest one, begins with the ledger of that older one. */
export async function proveConsistency(driver: Driver, older: string, newer?: string): Promise<Proof> {
  const from = read(older)
  const head = await ledgerHead(driver)
  const stored = newer === undefined ? await newestCheckpoint(driver) : null
  const to = newer === undefined ? stored && read(stored.note) : read(newer)
  const foreign = [from, ...(to ? [to] : [])].find(({ origin }) => origin !== head.origin)
  if (foreign) {
    throw new TmsError({
      code: 'INPUT_INVALID',
      what: 'this checkpoint is of another ledger',
      why: `it is of ${foreign.origin}, and this is ${head.origin}`,
      next: ['tms ledger checkpoint --out <file>'],
    })
  }
  const largest = Math.max(from.size, to?.size ?? 0)
  if (largest > head.size) {
    throw new TmsError({
      code: 'CONFLICT',
      what: `the ledger does not have the ${largest} rows of this checkpoint`,
      why: `the ledger has ${head.size} rows: its end was cut off`,
      next: ['tms ledger verify --checkpoint <file>'],
    })
  }
  if (newer !== undefined && to !== null && to.size < from.size) {
    throw new TmsError({
      code: 'INPUT_INVALID',
      what: 'the checkpoint of --from is the newer one',
      why: `it covers ${from.size} rows, and that of --to ${to.size}`,
      next: ['tms ledger prove --from <older> --to <newer>'],
    })
  }
  if (to === null || to.size < from.size) {
    throw new TmsError({
      code: 'CONFLICT',
      what: `no stored checkpoint is as new as this one of ${from.size} rows`,
      why: `the ledger has ${head.size} rows`,
      next: ['tms ledger checkpoint'],
    })
  }
  const answer = granted(await driver.call('ledger_consistency', { from: String(from.size), to: String(to.size) }))
  const hashes = whole(answer.hashes).map((hash) => fromBase64(hash, 32))
  const holds = verifyConsistency({
    from: from.size,
    to: to.size,
    fromRoot: from.root,
    toRoot: to.root,
    proof: hashes,
  })
  if (!holds) {
    const [fromRoot = '', toRoot = ''] = whole([answer.from_root, answer.to_root])
    const rewritten = [
      { ...from, is: fromRoot },
      { ...to, is: toRoot },
    ].find(({ root, is }) => !sameBytes(fromBase64(is, 32), root))
    if (!rewritten) throw brokenTree()
    throw new TmsError({
      code: 'CONFLICT',
      what: `the ledger no longer begins with the ${rewritten.size} rows of this checkpoint`,
      why: 'something in them was changed after it was signed',
      next: ['tms ledger verify --checkpoint <file>'],
    })
  }
  return { kind: 'consistency', text: formatConsistency({ origin: head.origin, from, to, hashes }), size: to.size }
}

function read(file: string): ReturnType<typeof readCheckpoint> {
  return readCheckpoint(proven(() => noteIn(file)))
}
