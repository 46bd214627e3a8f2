import type { Signer } from '../keys/signer.ts'
import { fromBase64, ProofError, toBase64 } from './bytes.ts'
import { verifySignature, type PublicHalf } from './ed25519.ts'

/** DSSE: a signature that covers what kind of thing was signed, too. */
export type Envelope = {
  readonly payloadType: string
  /** Base64. */
  readonly payload: string
  /** One, without a key id: that wouldn't be signed, and could be changed unseen. */
  readonly signatures: readonly [{ readonly sig: string }]
}

/** The bytes that are signed. */
export function pae(payloadType: string, payload: Uint8Array): Uint8Array {
  const type = Buffer.from(payloadType)
  return Buffer.concat([Buffer.from(`DSSEv1 ${type.length} `), type, Buffer.from(` ${payload.length} `), payload])
}

export async function makeEnvelope(payloadType: string, payload: Uint8Array, signer: Signer): Promise<Envelope> {
  const signature = await signer.sign(pae(payloadType, payload))
  return { payloadType, payload: toBase64(payload), signatures: [{ sig: toBase64(signature) }] }
}

/** The payload, if this key signed it as this type; else a ProofError. */
export function verifyEnvelope(envelope: Envelope, payloadType: string, key: PublicHalf): Uint8Array {
  if (envelope.payloadType !== payloadType) throw new ProofError(`it is no ${payloadType}`)
  const payload = fromBase64(envelope.payload)
  const signature = fromBase64(envelope.signatures[0].sig, 64)
  if (!verifySignature(key, pae(payloadType, payload), signature)) {
    throw new ProofError(`its signature with the key ${key.fingerprint.slice(0, 16)}… is wrong`)
  }
  return payload
}
