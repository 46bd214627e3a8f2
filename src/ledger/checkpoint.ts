import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import type { Signer } from '../keys/signer.ts'
import { fromBase64, ProofError, toBase64 } from '../proof/bytes.ts'
import type { PublicHalf } from '../proof/ed25519.ts'
import {
  cosign,
  isName,
  makeCheckpoint,
  parseCheckpoint,
  parseNote,
  signNote,
  verifyCheckpoint,
} from '../proof/note.ts'
import { ledgerHead, sealLedger } from './ledger.ts'

export type StoredCheckpoint = Contract['ledger_checkpoints']['result']['checkpoints'][number]

export type MadeCheckpoint = {
  readonly size: number
  readonly root: string
  readonly key: string
  readonly note: string
  /** False: this key had signed this size before, and that note is the checkpoint. */
  readonly first: boolean
}

/** Seals what waits, signs the tree, stores the note. Twice in a row without news is one checkpoint. */
export async function makeLedgerCheckpoint(driver: Driver, signer: Signer): Promise<MadeCheckpoint> {
  await sealLedger(driver)
  const { origin, size, root } = await ledgerHead(driver)
  const text = makeCheckpoint({ origin, size, root: fromBase64(root, 32) })
  const stored = granted(
    await driver.call('ledger_checkpoint_add', {
      request_id: randomUUID(),
      note: await signNote(text, origin, signer),
      size: String(size),
      root,
      key: signer.fingerprint,
    }),
  )
  return { size, root, key: stored.key, note: witnessedNote(stored), first: stored.first }
}

/** The note with the newest line of each witness behind it. */
export function witnessedNote({ note, witnesses }: StoredCheckpoint): string {
  const newest = new Map<string, string>()
  for (const line of witnesses) {
    const [, name = '', encoded = ''] = line.split(' ')
    newest.set(`${name} ${toBase64(Buffer.from(encoded, 'base64').subarray(0, 4))}`, line)
  }
  return note + [...newest.values()].map((line) => `${line}\n`).join('')
}

/** The oldest stored checkpoint that covers so many rows; null when there is none yet. */
export async function checkpointCovering(driver: Driver, rows: number): Promise<StoredCheckpoint | null> {
  const { checkpoints } = granted(await driver.call('ledger_checkpoints', { limit: 1, at_least: String(rows) }))
  return checkpoints[0] ?? null
}

export async function newestCheckpoint(driver: Driver): Promise<StoredCheckpoint | null> {
  const { checkpoints } = granted(await driver.call('ledger_checkpoints', { limit: 1 }))
  return checkpoints[0] ?? null
}

export type Witnessed = { readonly note: string; readonly name: string; readonly size: number; readonly line: string }

/**
 * Countersigns a checkpoint: "I saw this, then". With the log's key its signature is checked first. Needs no database.
 */
export async function witnessCheckpoint({
  note,
  signer,
  name,
  time,
  logKey,
}: {
  note: string
  signer: Signer
  name?: string | undefined
  /** Seconds since 1970. */
  time: number
  logKey?: PublicHalf | undefined
}): Promise<Witnessed> {
  const { size, origin } = readCheckpoint(note)
  if (logKey) proven(() => verifyCheckpoint(note, origin, logKey))
  if (name !== undefined && !isName(name)) {
    throw new TmsError({
      code: 'USAGE',
      what: `"${name}" can't be the name of a witness.`,
      why: 'It stands in a signed note, where a name has no blanks and no plus sign.',
      next: ['tms ledger witness <checkpoint> --key <file> --name auditor.example/2026'],
    })
  }
  const called = name ?? `tms.invalid/witness/${signer.fingerprint.slice(0, 16)}`
  const cosigned = await cosign(note, { name: called, signer, time })
  const line = cosigned.trimEnd().split('\n').at(-1) ?? ''
  return { note: cosigned, name: called, size, line }
}

/** Puts a witness's line beside the checkpoint in the database. */
export async function storeWitness(driver: Driver, { note, line }: Witnessed): Promise<void> {
  const { size, root } = readCheckpoint(note)
  granted(
    await driver.call('ledger_witness_add', {
      request_id: randomUUID(),
      size: String(size),
      root: toBase64(root),
      line,
    }),
  )
}

/** What a checkpoint says, whoever signed it. */
export function readCheckpoint(note: string): ReturnType<typeof parseCheckpoint> {
  return proven(() => parseCheckpoint(parseNote(note).text))
}

/** A proof that isn't one is bad input to a command. */
export function proven<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof ProofError)) throw error
    throw new TmsError(
      {
        code: 'INPUT_INVALID',
        what: 'this is not the checkpoint it should be',
        why: error.message,
        next: ['tms ledger checkpoint --out <file>'],
      },
      { cause: error },
    )
  }
}
