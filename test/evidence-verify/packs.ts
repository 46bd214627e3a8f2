import { generateKeyPairSync, sign } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { publicationStatement } from '../../src/evidence/verify.ts'
import { verifyScript } from '../../src/evidence/verify-script.ts'
import { dayAfter, tombstonePayloadType, type Manifest } from '../../src/evidence/verify-forms.ts'
import { formatConsistency } from '../../src/proof/consistency.ts'
import { sha256Hex, toBase64 } from '../../src/proof/bytes.ts'
import { canonicalFile, canonicalJson, type Canonical } from '../../src/proof/canonical.ts'
import type { Signer } from '../../src/keys/signer.ts'
import { publicHalf } from '../../src/proof/ed25519.ts'
import { consistencyProof, inclusionProof, leafHash, rootOf } from '../../src/proof/merkle.ts'
import { makeCheckpoint, signNote } from '../../src/proof/note.ts'
import { makeBundle } from '../../src/proof/sigstore.ts'
import { formatSums } from '../../src/proof/sums.ts'
import { formatTlogProof } from '../../src/proof/tlog-proof.ts'

/** Packs made from the format's description alone: a small ledger in memory, keys, checkpoints, proofs. */

export type Files = Map<string, Uint8Array>

export type TestKey = Signer & {
  readonly notBefore: string
  readonly notAfter: string
  readonly introducedBy: TestKey | null
  revokedAt: string | null
  /** When another one took over; a revoked one ended at its revocation, if not before. */
  endedAt: string | null
  readonly privatePem: string
}

export function testKey(given: Partial<Pick<TestKey, 'notBefore' | 'notAfter' | 'introducedBy'>> = {}): TestKey {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  return {
    ...publicHalf(publicKey.export({ type: 'spki', format: 'pem' }).toString()),
    sign: (bytes) => Promise.resolve(new Uint8Array(sign(null, bytes, privateKey))),
    notBefore: '2026-01-01T00:00:00.000000Z',
    notAfter: '2027-12-31T00:00:00.000000Z',
    introducedBy: null,
    revokedAt: null,
    endedAt: null,
    privatePem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    ...given,
  }
}

export type Ledger = { readonly origin: string; readonly lines: string[]; readonly leaves: Uint8Array[] }

export function startLedger(origin = 'tms.invalid/ledger/7b0e'): Ledger {
  return { origin, lines: [], leaves: [] }
}

export function addRow(
  ledger: Ledger,
  day: string,
  action: string,
  subject = '',
  body = 'null',
  at = `${day}T12:00:00.000000Z`,
): number {
  const seq = ledger.lines.length
  const last = ledger.lines.at(-1)
  const line = [
    'tms-ledger-v1',
    seq,
    last === undefined ? '0'.repeat(64) : sha256Hex(last),
    seq + 100,
    at,
    'ada',
    'login:1',
    'super_admin',
    'test',
    action,
    'done',
    '',
    sha256Hex(subject),
    sha256Hex('why'),
    '',
    sha256Hex(body),
  ].join('\n')
  ledger.lines.push(line)
  ledger.leaves.push(leafHash(line))
  return seq
}

export async function checkpointNote(ledger: Ledger, key: Signer, size = ledger.leaves.length): Promise<string> {
  const text = makeCheckpoint({ origin: ledger.origin, size, root: rootOf(ledger.leaves.slice(0, size)) })
  return signNote(text, ledger.origin, key)
}

export function proofBetween(ledger: Ledger, from: number, to: number): string {
  const leaves = ledger.leaves.slice(0, to)
  return formatConsistency({
    origin: ledger.origin,
    from: { size: from, root: rootOf(leaves.slice(0, from)) },
    to: { size: to, root: rootOf(leaves) },
    hashes: consistencyProof(leaves, from),
  })
}

/** What the next pack must know of the last one. */
type Last = {
  readonly day: string
  readonly manifest_sha256: string
  readonly treeSize: number
  readonly checkpointSize: number
}

export type Pack = {
  readonly day: string
  readonly files: Files
  readonly manifest: Manifest
  readonly checkpointSize: number
}

export type Chain = {
  readonly ledger: Ledger
  /** All keys there ever were: what keys.json lists. */
  readonly keys: TestKey[]
  last: Last | null
}

export function startChain(key: TestKey, ledger = startLedger()): Chain {
  return { ledger, keys: [key], last: null }
}

async function keyEntry(key: TestKey): Promise<Canonical> {
  const own = {
    fingerprint: key.fingerprint,
    not_after: key.notAfter,
    not_before: key.notBefore,
    public_pem: key.publicKeyPem,
  }
  const introduction = await key.introducedBy?.sign(Buffer.from(canonicalJson({ ...own, type: 'tms-key-v1' })))
  return {
    ...own,
    introduced_by: key.introducedBy?.fingerprint ?? null,
    introduction: introduction ? toBase64(introduction) : null,
    state: key.revokedAt !== null ? 'revoked' : key.endedAt !== null ? 'retired' : 'valid',
    ended_at: key.endedAt ?? key.revokedAt,
    revoked_at: key.revokedAt,
  }
}

export type PackOptions = {
  readonly rows?: number
  readonly final?: boolean
  readonly as_of?: string
  /** When the ledger took the manifest's row; with `as_of` when it isn't named. */
  readonly row_at?: string
  readonly verdict?: Manifest['verdict']
  /** Facts that differ from the plain ones. */
  readonly facts?: Readonly<Record<string, string>>
  readonly listed?: readonly TestKey[]
}

/** The next day of a chain, signed by `key`. */
export async function nextPack(chain: Chain, day: string, key: TestKey, options: PackOptions = {}): Promise<Pack> {
  const { ledger, last } = chain
  for (let n = options.rows ?? 5; n > 0; n -= 1) addRow(ledger, day, 'flags.set', `row ${n}`)
  const texts: Record<string, string> = {
    'flags.json': canonicalFile({ flags: [{ key: 'autonomy.mode', value: 'FULL' }], type: 'tms-flags-v1' }),
    'slo_snapshot.json': canonicalFile({ day, type: 'tms-slo-v1', success: { percent: '99.4', samples: 1200 } }),
    'outbox_lag.json': canonicalFile({ p95_ms: '812', type: 'tms-outbox-v1' }),
    'audit_digest.json': canonicalFile({ actions: [], type: 'tms-audit-v1' }),
    'controls.json': canonicalFile({ controls: [], type: 'tms-controls-v1' }),
    'alerts.sql.out': 'no alerts\n',
    'trace-sample.txt': '4bf92f3577b34da6a3ce929d0e0e4736 http://traces/4bf92f\n',
    ...options.facts,
  }
  const files: Files = new Map(Object.entries(texts).map(([name, text]) => [name, Buffer.from(text)]))
  const manifest: Manifest = {
    type: 'tms-manifest-v1',
    day,
    revision: 1,
    final: options.final ?? true,
    as_of: options.as_of ?? `${dayAfter(day)}T00:10:00.000000Z`,
    database: { origin: ledger.origin, environment: 'test' },
    verdict: options.verdict ?? 'green',
    previous: last && { day: last.day, manifest_sha256: last.manifest_sha256 },
    ledger: { from_seq: last?.treeSize ?? 0, tree_size: ledger.lines.length },
    files: Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, sha256Hex(text)])),
    key: key.fingerprint,
  }
  const put = (name: string, text: string | Uint8Array) => files.set(name, Buffer.from(text))
  const manifestText = canonicalFile(manifest)
  const manifest_sha256 = sha256Hex(manifestText)
  put('manifest.json', manifestText)
  const body = JSON.stringify({ day, manifest_sha256, revision: 1 })
  const seq = addRow(ledger, day, 'evidence.manifest', `${day}/1`, body, options.row_at ?? manifest.as_of)
  put('manifest-row.txt', `${ledger.lines[seq] ?? ''}\n\n${body}\n`)
  const checkpoint = await checkpointNote(ledger, key)
  put('checkpoint.txt', checkpoint)
  put('inclusion.tlog-proof', formatTlogProof({ index: seq, hashes: inclusionProof(ledger.leaves, seq), checkpoint }))
  put('consistency.txt', proofBetween(ledger, last?.checkpointSize ?? 0, ledger.leaves.length))
  put('attestation.sigstore.json', await makeBundle(publicationStatement(manifest, manifest_sha256), key))
  const listed = await Promise.all((options.listed ?? chain.keys).map(keyEntry))
  put('keys.json', canonicalFile({ type: 'tms-keys-v1', keys: listed }))
  put('index.html', `<!doctype html><title>${day}</title>\n`)
  put('VERIFY.sh', verifyScript)
  await seal(files, key)
  if (manifest.final) {
    chain.last = { day, manifest_sha256, treeSize: manifest.ledger.tree_size, checkpointSize: ledger.leaves.length }
  }
  return { day, files, manifest, checkpointSize: ledger.leaves.length }
}

/** SHA256SUMS and its signature, over whatever is there. */
export async function seal(files: Files, key: Signer): Promise<void> {
  files.delete('SHA256SUMS')
  files.delete('SHA256SUMS.sig')
  const sums = Buffer.from(formatSums([...files].map(([name, bytes]) => ({ name, sha256: sha256Hex(bytes) }))))
  files.set('SHA256SUMS', sums)
  files.set('SHA256SUMS.sig', await key.sign(sums))
}

export async function packsOf(chain: Chain, from: string, days: number, key: TestKey): Promise<Pack[]> {
  const packs: Pack[] = []
  for (let n = 0; n < days; n += 1) packs.push(await nextPack(chain, dayAfter(from, n), key))
  return packs
}

export async function tombstoneOf(chain: Chain, pack: Pack, key: Signer, at: string): Promise<string> {
  const size = pack.checkpointSize
  const payload = {
    type: 'tms-tombstone-v1',
    day: pack.day,
    manifest_sha256: sha256Hex(pack.files.get('manifest.json') ?? ''),
    sums_sha256: sha256Hex(pack.files.get('SHA256SUMS') ?? ''),
    previous_manifest_sha256: pack.manifest.previous?.manifest_sha256 ?? null,
    checkpoint_size: size,
    checkpoint_root: toBase64(rootOf(chain.ledger.leaves.slice(0, size))),
    expired_at: at,
    reason: 'older than 35 days',
  }
  return makeBundle(payload, key, tombstonePayloadType)
}

export function writePack(folder: string, files: Files): void {
  mkdirSync(folder, { recursive: true })
  for (const [name, bytes] of files) writeFileSync(join(folder, name), bytes)
}

/** The same bytes but for one bit. */
export function flipped(bytes: Uint8Array, bit: number): Uint8Array {
  const copy = Uint8Array.from(bytes)
  const at = Math.floor(bit / 8)
  copy[at] = (copy[at] ?? 0) ^ (1 << (bit % 8))
  return copy
}
