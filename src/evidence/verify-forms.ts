import * as z from 'zod'
import { fromBase64, fromDecimal, ProofError, sha256Hex } from '../proof/bytes.ts'
import { canonicalFile, parseCanonicalFile, type Canonical } from '../proof/canonical.ts'
import { publicHalf, verifySignature, type PublicHalf } from '../proof/ed25519.ts'

/** The forms that a verifier reads. Each has one spelling; whatever differs from it by a byte is refused. */

const digest = z.string().regex(/^[0-9a-f]{64}$/)
/** One width, so that the order of texts is the order of times. */
const instantPattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/
const instant = z.string().regex(instantPattern)
const day = z.string().refine(isDay, 'is no day')

export const dayPattern = /^\d{4}-\d\d-\d\d$/

export function isDay(text: string): boolean {
  if (!dayPattern.test(text)) return false
  const time = Date.parse(`${text}T00:00:00Z`)
  return !Number.isNaN(time) && new Date(time).toISOString().slice(0, 10) === text
}

export function dayAfter(text: string, days = 1): string {
  return new Date(Date.parse(`${text}T00:00:00Z`) + days * 86_400_000).toISOString().slice(0, 10)
}

export type Range = { readonly from: string; readonly to: string }

/** `2026-10-01..2026-10-31`, or one day; null for anything else. */
export function readRange(text: string): Range | null {
  const [from = '', to = from, ...more] = text.split('..')
  return isDay(from) && isDay(to) && from <= to && more.length === 0 ? { from, to } : null
}

/** The moment at which a day begins. */
export function dayStart(text: string): string {
  return `${text}T00:00:00.000000Z`
}

// ---- the files of a pack

/** What isn't a fact: SHA256SUMS covers it, manifest.json doesn't name it. */
export const carriers = [
  'index.html',
  'manifest.json',
  'attestation.sigstore.json',
  'checkpoint.txt',
  'inclusion.tlog-proof',
  'consistency.txt',
  'manifest-row.txt',
  'keys.json',
  'VERIFY.sh',
] as const

/** The facts that every pack has. */
export const facts = [
  'flags.json',
  'slo_snapshot.json',
  'outbox_lag.json',
  'audit_digest.json',
  'controls.json',
  'alerts.sql.out',
  'trace-sample.txt',
] as const

// ---- manifest.json

const manifestShape = z.strictObject({
  type: z.literal('tms-manifest-v1'),
  day,
  revision: z.int().min(1),
  final: z.boolean(),
  as_of: instant,
  database: z.strictObject({
    origin: z.string().min(1),
    environment: z.string(),
    name: z.string().optional(),
  }),
  verdict: z.enum(['green', 'red', 'unknown']),
  previous: z.strictObject({ day, manifest_sha256: digest }).nullable(),
  ledger: z.strictObject({ from_seq: z.int().min(0), tree_size: z.int().min(0) }),
  files: z.record(z.string(), digest),
  key: digest,
})

export type Manifest = z.infer<typeof manifestShape>

export function parseManifest(text: string): Manifest {
  return shaped(manifestShape, parseCanonicalFile(text))
}

// ---- keys.json

const keyShape = z
  .strictObject({
    fingerprint: digest,
    public_pem: z.string(),
    not_before: instant,
    not_after: instant,
    introduced_by: digest.nullable(),
    /** Base64: signature over `introductionOf` this key by the older one; by itself where there is none before it. */
    introduction: z.string().nullable(),
    state: z.enum(['valid', 'retired', 'revoked']),
    /** When it stopped signing: another took over, or it was revoked. */
    ended_at: instant.nullable(),
    revoked_at: instant.nullable(),
  })
  .refine(({ state, ended_at }) => (state === 'valid') === (ended_at === null), 'its state and its end do not fit')
  .refine(
    ({ state, revoked_at }) => (state === 'revoked') === (revoked_at !== null),
    'its state and its revocation do not fit',
  )

export type KeyEntry = z.infer<typeof keyShape> & { readonly half: PublicHalf }

const keysShape = z.strictObject({ type: z.literal('tms-keys-v1'), keys: z.array(keyShape).min(1).max(1000) })

/** The keys as a pack tells of them. That a fingerprint is its key's, is checked; who to believe, isn't. */
export function parseKeys(text: string): readonly KeyEntry[] {
  const { keys } = shaped(keysShape, parseCanonicalFile(text))
  const seen = new Set<string>()
  return keys.map((entry) => {
    const half = publicHalf(entry.public_pem)
    if (half.fingerprint !== entry.fingerprint) {
      throw new ProofError(`the key called ${short(entry.fingerprint)} is ${short(half.fingerprint)}`)
    }
    if (half.publicKeyPem !== entry.public_pem) {
      throw new ProofError(`the PEM of ${short(entry.fingerprint)} isn't its one spelling`)
    }
    if (seen.has(entry.fingerprint)) throw new ProofError(`the key ${short(entry.fingerprint)} is there twice`)
    seen.add(entry.fingerprint)
    return { ...entry, half }
  })
}

/** What the older key signs to introduce a newer one. */
function introductionOf({ fingerprint, not_after, not_before, public_pem }: KeyEntry): string {
  return canonicalFile({ fingerprint, not_after, not_before, public_pem, type: 'tms-key-v1' }).slice(0, -1)
}

export function isIntroducedBy(entry: KeyEntry, older: PublicHalf): boolean {
  if ((entry.introduced_by ?? entry.fingerprint) !== older.fingerprint || entry.introduction === null) return false
  try {
    return verifySignature(older, Buffer.from(introductionOf(entry)), fromBase64(entry.introduction, 64))
  } catch (error) {
    if (error instanceof ProofError) return false
    throw error
  }
}

// ---- manifest-row.txt

export type ManifestRow = {
  readonly seq: number
  readonly line: string
  readonly at: string
  readonly subject_sha256: string
  readonly action: string
  readonly outcome: string
  readonly body: { readonly day: string; readonly manifest_sha256: string; readonly revision: number }
}

const rowBody = z.strictObject({ day, manifest_sha256: digest, revision: z.int() })

/** The ledger's line of the row that holds the manifest's digest, and the row's body. */
export function parseManifestRow(text: string): ManifestRow {
  // By number, not at the first empty line: a row of no tenant has an empty field.
  const [fields, [empty, body, end, ...more]] = splitAt(text.split('\n'), 16)
  if (fields.length !== 16 || empty !== '' || body === undefined || end !== '' || more.length > 0) {
    throw new ProofError('it is not the 16 fields of a line of the ledger, an empty line and a body')
  }
  const line = fields.join('\n')
  const [type, seq, , , at = '', , , , , action, outcome] = fields
  const [subject_sha256 = '', , , body_sha256] = fields.slice(12)
  if (type !== 'tms-ledger-v1') throw new ProofError('it is no line of tms-ledger-v1')
  if (!instantPattern.test(at)) throw new ProofError('its time is no moment')
  if (sha256Hex(body) !== body_sha256) throw new ProofError('the body is not the one whose digest the line holds')
  return {
    seq: fromDecimal(seq ?? ''),
    line,
    at,
    subject_sha256,
    action: action ?? '',
    outcome: outcome ?? '',
    body: shaped(rowBody, parsedJson(body)),
  }
}

function splitAt(lines: readonly string[], at: number): readonly [readonly string[], readonly string[]] {
  return [lines.slice(0, at), lines.slice(at)]
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new ProofError('the body is no JSON', { cause: error })
  }
}

// ---- tombstones

export const tombstonePayloadType = 'application/vnd.tms.tombstone.v1+json'

const tombstoneShape = z.strictObject({
  type: z.literal('tms-tombstone-v1'),
  day,
  manifest_sha256: digest,
  sums_sha256: digest,
  previous_manifest_sha256: digest.nullable(),
  checkpoint_size: z.int().min(0),
  checkpoint_root: z.string(),
  expired_at: instant,
  reason: z.string(),
})

export type Tombstone = z.infer<typeof tombstoneShape>

export function readTombstone(payload: Canonical): Tombstone {
  return shaped(tombstoneShape, payload)
}

// ---- parts

/**
 * That a file is canonical JSON, and no more. Large facts are read for nothing else, so first the quick way: what reads and
 * writes as itself, with its keys in order, is canonical; only what doesn't is written the slow way, which has the last word.
 */
export function checkCanonicalFile(text: string): void {
  try {
    const value: unknown = JSON.parse(text)
    // An escape may be half a character, and those have no one spelling.
    if (`${JSON.stringify(value)}\n` === text && !text.includes('\\ud') && isOrdered(value, 64)) return
  } catch {
    // the slow way says what it is
  }
  parseCanonicalFile(text)
}

function isOrdered(value: unknown, depth: number): boolean {
  if (typeof value === 'number') return Number.isSafeInteger(value)
  if (typeof value !== 'object' || value === null) return true
  if (depth === 0) return false
  if (Array.isArray(value)) return value.every((item) => isOrdered(item, depth - 1))
  let last = ''
  for (const [key, member] of Object.entries(value)) {
    if (key < last || !/^[\u0000-\u007f]*$/.test(key) || !isOrdered(member, depth - 1)) return false
    last = key
  }
  return true
}

function shaped<T>(shape: z.ZodType<T>, value: unknown): T {
  const parsed = shape.safeParse(value)
  if (parsed.success) return parsed.data
  const { path, message } = parsed.error.issues[0] ?? { path: [], message: 'it has another form' }
  throw new ProofError([path.join('.'), message].filter(Boolean).join(': '))
}

/** So much of a fingerprint or digest as a person compares. */
export function short(text: string): string {
  return text.length > 16 ? `${text.slice(0, 16)}…` : text
}
