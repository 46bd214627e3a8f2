import type { PublicHalf } from '../proof/ed25519.ts'

/** What makes signatures: a private key, or a program that has one. 64 raw bytes, Ed25519. */
export type Signer = PublicHalf & { sign(bytes: Uint8Array): Promise<Uint8Array> }
