import * as z from 'zod'
import { canonicalFile, canonicalJson, parseCanonicalFile } from '../proof/canonical.ts'
import { fromBase64, ProofError, toBase64 } from '../proof/bytes.ts'
import { publicHalf, verifySignature, type PublicHalf } from '../proof/ed25519.ts'
import type { Signer } from './signer.ts'

/**
 * Who may sign, and from when until when, as a chain: each key is introduced by the one before it, the first by itself.
 * Whoever trusts one key of the chain can follow it to the later ones. Nobody who trusts none is helped by it.
 */

const moment = z.string().regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
const fingerprint = z.string().regex(/^[0-9a-f]{64}$/)

const introducedShape = z.strictObject({
  fingerprint,
  public_pem: z.string(),
  /** Text in UTC with six digits, so that comparing it as text compares the time. */
  not_before: moment,
  not_after: moment,
  introduced_by: fingerprint.nullable(),
  /** Base64. */
  introduction: z.string(),
  /** When it stopped signing, because another took over or because it was revoked, as known when this was written. */
  ended_at: moment.nullable(),
  revoked_at: moment.nullable(),
})
const fileShape = z.strictObject({ type: z.literal('tms-keys-v1'), keys: z.array(introducedShape).min(1) })

export type Introduced = z.infer<typeof introducedShape>
export type KeyTerms = Pick<Introduced, 'fingerprint' | 'public_pem' | 'not_before' | 'not_after'>

/** The bytes that the introducing key signs. */
function statement({ fingerprint, public_pem, not_before, not_after }: KeyTerms): Buffer {
  return Buffer.from(canonicalJson({ fingerprint, not_after, not_before, public_pem, type: 'tms-key-v1' }))
}

/** Base64. */
export async function introduce(terms: KeyTerms, by: Signer): Promise<string> {
  return toBase64(await by.sign(statement(terms)))
}

// ---- keys.json

/** keys.json: every key up to now with its introduction, in the order they came. */
export function formatKeys(keys: readonly Introduced[]): string {
  const plain = keys.map((key) => ({
    fingerprint: key.fingerprint,
    public_pem: key.public_pem,
    not_before: key.not_before,
    not_after: key.not_after,
    introduced_by: key.introduced_by,
    introduction: key.introduction,
    ended_at: key.ended_at,
    revoked_at: key.revoked_at,
  }))
  return canonicalFile({ type: 'tms-keys-v1', keys: plain })
}

export function parseKeys(text: string): readonly Introduced[] {
  const parsed = fileShape.safeParse(parseCanonicalFile(text))
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0] ?? { path: [], message: '' }
    throw new ProofError(`it is no list of keys: ${[path.join('.'), message].filter(Boolean).join(': ')}`)
  }
  return parsed.data.keys
}

// ---- trust

export type Trust = { readonly keys: readonly Introduced[]; /** Given from outside. */ readonly trusted: PublicHalf }

/**
 * The keys that the trusted one vouches for: itself, and those that it or one of these introduced. A key that says
 * something else about itself than was signed, and one whose introducer was revoked before it began, is left out.
 */
export function vouchedFor({ keys, trusted }: Trust): readonly Introduced[] {
  const found = new Map<string, Introduced>()
  const accept = (key: Introduced, by: PublicHalf) => {
    if (found.has(key.fingerprint) || !holds(key, by)) return
    found.set(key.fingerprint, key)
    const half = publicHalf(key.public_pem)
    for (const next of keys) {
      if (next.introduced_by !== key.fingerprint || next.fingerprint === key.fingerprint) continue
      if (key.revoked_at !== null && key.revoked_at < next.not_before) continue
      accept(next, half)
    }
  }
  const own = keys.find((key) => key.fingerprint === trusted.fingerprint)
  if (!own) return []
  // its own window was signed by the key before it, which may be here, or by itself
  const before = keys.find((key) => key.fingerprint === own.introduced_by)
  const introducer = own.introduced_by === null ? trusted : before && halfOf(before)
  if (introducer) accept(own, introducer)
  return [...found.values()]
}

/**
 * Why this key could not sign at that moment, as far as the trusted key lets us know; null when it could.
 * `sigstore-js` doesn't ask this without a trusted timestamp: its "verified" alone says nothing about validity.
 */
export function distrust(trust: Trust, signer: string, at: string): string | null {
  const key = vouchedFor(trust).find((candidate) => candidate.fingerprint === signer)
  if (!key) return `the key ${signer.slice(0, 16)}… is neither the trusted one nor introduced by it`
  if (at < key.not_before) return `the key ${signer.slice(0, 16)}… was valid from ${key.not_before}`
  if (at > key.not_after) return `the key ${signer.slice(0, 16)}… was valid until ${key.not_after}`
  if (key.revoked_at !== null && at >= key.revoked_at)
    return `the key ${signer.slice(0, 16)}… was revoked at ${key.revoked_at}`
  if (key.ended_at !== null && at > key.ended_at)
    return `another key took over from ${signer.slice(0, 16)}… at ${key.ended_at}`
  return null
}

function holds(key: Introduced, by: PublicHalf): boolean {
  const half = halfOf(key)
  if (half?.fingerprint !== key.fingerprint || half.publicKeyPem !== key.public_pem) return false
  try {
    return verifySignature(by, statement(key), fromBase64(key.introduction, 64))
  } catch (error) {
    if (error instanceof ProofError) return false
    throw error
  }
}

function halfOf({ public_pem }: Introduced): PublicHalf | null {
  try {
    return publicHalf(public_pem)
  } catch (error) {
    if (error instanceof ProofError) return null
    throw error
  }
}
