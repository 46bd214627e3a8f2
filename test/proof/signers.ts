import { signerOf, makePrivateKey } from '../../src/keys/private.ts'
import type { Signer } from '../../src/keys/signer.ts'

/** A new key in memory. */
export function newSigner(): Signer {
  const signer = signerOf(makePrivateKey())
  if (!signer) throw new Error('no key was made')
  return signer
}

/** The bytes with one bit turned over. */
export function flipped(bytes: Uint8Array, bit: number): Uint8Array {
  const copy = Uint8Array.from(bytes)
  copy[bit >> 3] = (copy[bit >> 3] ?? 0) ^ (1 << (bit & 7))
  return copy
}

/** Every bit of these bytes whose flip is accepted: none, for whatever is a proof. */
export function acceptedFlips(bytes: Uint8Array, accepts: (bytes: Uint8Array) => boolean): number[] {
  return Array.from({ length: bytes.length * 8 }, (_, bit) => bit).filter((bit) => {
    try {
      return accepts(flipped(bytes, bit))
    } catch (error) {
      if (error instanceof Error && error.name === 'ProofError') return false
      throw error
    }
  })
}
