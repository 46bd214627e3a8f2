import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import type { Signer } from '../keys/signer.ts'
import { fromBase64, sha256Hex, toBase64 } from '../proof/bytes.ts'
import { canonicalFile } from '../proof/canonical.ts'
import { formatConsistency } from '../proof/consistency.ts'
import { emptyRoot } from '../proof/merkle.ts'
import { makeCheckpoint, parseCheckpoint, parseNote, signNote } from '../proof/note.ts'
import { makeBundle } from '../proof/sigstore.ts'
import { formatSums } from '../proof/sums.ts'
import { formatTlogProof } from '../proof/tlog-proof.ts'
import { pageHtml } from './html/page.ts'
import { auditDigestFile } from './schemas/audit-digest.ts'
import { controlsFile } from './schemas/controls.ts'
import { flagsFile } from './schemas/flags.ts'
import { keysFile, type KeysFile } from './schemas/keys.ts'
import { manifestFile } from './schemas/manifest.ts'
import { outboxLagFile } from './schemas/outbox-lag.ts'
import { sloSnapshotFile } from './schemas/slo-snapshot.ts'
import { publicationStatement, verifyEvidence } from './verify.ts'
import { verifyScript } from './verify-script.ts'

export type Cut = NonNullable<Contract['evidence_state']['result']['cut']>
export type Pack = NonNullable<Contract['evidence_pack']['result']['pack']>

/** What lies around the facts: their place in the ledger, signatures, the page, how to check it all. */

export type Frozen = {
  readonly day: string
  readonly previous: Contract['evidence_state']['result']['previous']
  /** With its row's place in the ledger. */
  readonly cut: Cut
  readonly signer: Signer
}

export type Sealed = {
  /** All but the facts and the manifest, which the database has already. */
  readonly files: Record<string, string>
  /** SHA256SUMS.sig in base64. */
  readonly signature: string
}

export async function sealedFiles(driver: Driver, { day, previous, cut, signer }: Frozen): Promise<Sealed> {
  const { row, manifest: manifestText, files: facts } = cut
  if (!row) throw new Error(`the manifest of ${day} has no place in the ledger yet`)
  const manifest = manifestFile.parse(JSON.parse(manifestText))
  const manifestSha256 = sha256Hex(manifestText)

  const checkpoint = await signedCheckpoint(driver, manifest.database.origin, signer)
  const { size } = checkpoint
  const inclusion = granted(await driver.call('ledger_proof', { index: row.seq, size: String(size) }))
  const from = previous ? parseCheckpoint(parseNote(previous.checkpoint).text) : { size: 0, root: emptyRoot }
  const consistency = granted(await driver.call('ledger_consistency', { from: String(from.size), to: String(size) }))

  const files = {
    'index.html': pageHtml({ manifest, manifestSha256, ...factsOf(facts) }),
    'attestation.sigstore.json': await makeBundle(publicationStatement(manifest, manifestSha256), signer),
    'checkpoint.txt': checkpoint.note,
    'inclusion.tlog-proof': formatTlogProof({
      index: Number(row.seq),
      hashes: whole(inclusion.hashes),
      checkpoint: checkpoint.note,
    }),
    'consistency.txt': formatConsistency({
      origin: manifest.database.origin,
      from,
      to: checkpoint,
      hashes: whole(consistency.hashes),
    }),
    'manifest-row.txt': `${row.line}\n\n${row.body}\n`,
    'keys.json': canonicalFile(await keysOf(driver)),
    'VERIFY.sh': verifyScript,
  }
  const sums = formatSums(
    Object.entries({ ...files, ...facts, 'manifest.json': manifestText }).map(([name, text]) => ({
      name,
      sha256: sha256Hex(text),
    })),
  )
  const sealed = {
    files: { ...files, SHA256SUMS: sums },
    signature: toBase64(await signer.sign(Buffer.from(sums))),
  }
  await refuseBroken(
    day,
    bytesOf({ ...sealed.files, ...facts, 'manifest.json': manifestText }, sealed.signature),
    signer,
  )
  return sealed
}

/** The bytes of a stored pack, by file. */
export function storedFiles({ files, signature }: Pack): Map<string, Uint8Array> {
  return bytesOf(files, signature)
}

function bytesOf(files: Readonly<Record<string, string>>, signature: string): Map<string, Uint8Array> {
  return new Map<string, Uint8Array>([
    ...Object.entries(files).map(([name, text]): [string, Uint8Array] => [name, Buffer.from(text)]),
    ['SHA256SUMS.sig', fromBase64(signature, 64)],
  ])
}

/**
 * What would be stored is verified first, as an auditor would: a pack that doesn't verify must not become the day's.
 * The likely reason is a ledger whose past was changed since the pack before.
 */
async function refuseBroken(day: string, files: ReadonlyMap<string, Uint8Array>, signer: Signer): Promise<void> {
  const entries = new Map([...files].map(([name, bytes]) => [name, { kind: 'file' as const, bytes }]))
  const { broken } = await verifyEvidence(
    {
      name: day,
      kind: 'pack',
      packs: [{ folder: day, read: () => Promise.resolve(entries) }],
      tombstones: [],
      others: [],
    },
    { keys: [signer] },
  )
  const [first] = broken
  if (first === undefined) return
  throw new TmsError({
    code: 'CONFLICT',
    what: `the pack of ${day} would not verify, and was not stored`,
    why: `${first.file}: ${first.what}${broken.length > 1 ? `; ${broken.length - 1} more` : ''}`,
    next: ['tms ledger verify', 'tms evidence keys list'],
  })
}

// ---- parts

async function signedCheckpoint(
  driver: Driver,
  origin: string,
  signer: Signer,
): Promise<{ readonly size: number; readonly root: Uint8Array; readonly note: string }> {
  const head = granted(await driver.call('ledger_head', {}))
  if (head.root === null) throw damaged()
  const size = Number(head.size)
  const root = fromBase64(head.root, 32)
  const note = await signNote(makeCheckpoint({ origin, size, root }), origin, signer)
  granted(
    await driver.call('ledger_checkpoint_add', {
      request_id: randomUUID(),
      note,
      size: head.size,
      root: head.root,
      key: signer.fingerprint,
    }),
  )
  return { size, root, note }
}

function whole(hashes: readonly (string | null)[]): Uint8Array[] {
  return hashes.map((hash) => {
    if (hash === null) throw damaged()
    return fromBase64(hash, 32)
  })
}

function damaged(): TmsError {
  return new TmsError({
    code: 'CONFLICT',
    what: 'the ledger has no proof to give',
    why: 'hashes of its tree are missing: somebody deleted rows behind its back',
    next: ['tms ledger verify'],
  })
}

async function keysOf(driver: Driver): Promise<KeysFile> {
  const { keys } = granted(await driver.call('keys_list', {}))
  return keysFile.parse({
    type: 'tms-keys-v1',
    keys: keys.map(
      ({
        fingerprint,
        public_pem,
        not_before,
        not_after,
        introduced_by,
        introduction,
        state,
        ended_at,
        revoked_at,
      }) => ({
        fingerprint,
        public_pem,
        not_before,
        not_after,
        introduced_by,
        introduction,
        state,
        ended_at,
        revoked_at,
      }),
    ),
  })
}

/** Whether this release can finish the cut: it may be another one's. */
export function readable({ manifest, files }: Cut): boolean {
  try {
    manifestFile.parse(JSON.parse(manifest))
    factsOf(files)
    return true
  } catch {
    return false
  }
}

function factsOf(files: Readonly<Record<string, string>>) {
  const read = (name: string): unknown => JSON.parse(files[name] ?? 'null')
  return {
    flags: flagsFile.parse(read('flags.json')),
    slo: sloSnapshotFile.parse(read('slo_snapshot.json')),
    outbox: outboxLagFile.parse(read('outbox_lag.json')),
    audit: auditDigestFile.parse(read('audit_digest.json')),
    controls: controlsFile.parse(read('controls.json')),
    traces: files['trace-sample.txt'] ?? '',
  }
}
