import * as z from 'zod'
import type { Signer } from '../keys/signer.ts'
import { fromBase64, ProofError, textOf } from './bytes.ts'
import { canonicalFile, canonicalJson, parseCanonical, parseCanonicalFile, type Canonical } from './canonical.ts'
import { makeEnvelope, verifyEnvelope, type Envelope } from './dsse.ts'
import type { PublicHalf } from './ed25519.ts'

/** A Sigstore bundle v0.3 around one DSSE envelope, signed by a key that its fingerprint hints at. */

const mediaType = 'application/vnd.dev.sigstore.bundle.v0.3+json'
export const inTotoType = 'application/vnd.in-toto+json'

const bundleShape = z.strictObject({
  mediaType: z.literal(mediaType),
  verificationMaterial: z.strictObject({
    publicKey: z.strictObject({ hint: z.string().regex(/^[0-9a-f]{64}$/) }),
    tlogEntries: z.tuple([]),
  }),
  dsseEnvelope: z.strictObject({
    payloadType: z.string().min(1),
    payload: z.string(),
    signatures: z.tuple([z.strictObject({ sig: z.string() })]),
  }),
})

export type Bundle = {
  /** Fingerprint of the key that is said to have signed. */
  readonly hint: string
  readonly envelope: Envelope
}

/** An in-toto statement about files: what they are, by digest, and what is said about them. */
export function inTotoStatement(input: {
  readonly subject: readonly { readonly name: string; readonly sha256: string }[]
  readonly predicateType: string
  readonly predicate: Canonical
}): Canonical {
  return {
    _type: 'https://in-toto.io/Statement/v1',
    subject: input.subject.map(({ name, sha256 }) => ({ name, digest: { sha256 } })),
    predicateType: input.predicateType,
    predicate: input.predicate,
  }
}

/** The text of a bundle, as it is written into a file: canonical JSON around a payload of canonical JSON. */
export async function makeBundle(
  payload: Canonical,
  signer: Signer,
  payloadType: string = inTotoType,
): Promise<string> {
  const { signatures, ...envelope } = await makeEnvelope(payloadType, Buffer.from(canonicalJson(payload)), signer)
  return canonicalFile({
    mediaType,
    verificationMaterial: { publicKey: { hint: signer.fingerprint }, tlogEntries: [] },
    dsseEnvelope: { ...envelope, signatures },
  })
}

/** The parts, unverified. Nothing that is left out of the signature can differ from what `makeBundle` writes. */
export function parseBundle(text: string): Bundle {
  const parsed = bundleShape.safeParse(parseCanonicalFile(text))
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0] ?? { path: [], message: 'it is no bundle' }
    throw new ProofError(`it is no bundle of ours: ${[path.join('.'), message].filter(Boolean).join(': ')}`)
  }
  const { verificationMaterial, dsseEnvelope } = parsed.data
  fromBase64(dsseEnvelope.payload)
  fromBase64(dsseEnvelope.signatures[0].sig, 64)
  return { hint: verificationMaterial.publicKey.hint, envelope: dsseEnvelope }
}

/** The payload, if this key signed it; else a ProofError. */
export function verifyBundle(text: string, key: PublicHalf, payloadType: string = inTotoType): Canonical {
  const { hint, envelope } = parseBundle(text)
  if (hint !== key.fingerprint) {
    throw new ProofError(`it names the key ${hint.slice(0, 16)}…, not ${key.fingerprint.slice(0, 16)}…`)
  }
  return parseCanonical(textOf(verifyEnvelope(envelope, payloadType, key)))
}
