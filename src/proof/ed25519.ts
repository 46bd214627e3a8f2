import { createPublicKey, verify } from 'node:crypto'
import { ProofError, sha256Hex } from './bytes.ts'

/** The public half of a key: who signed. */
export type PublicHalf = {
  /** sha256 of the key (SPKI, DER): what `openssl pkey -pubin -outform DER | sha256sum` prints. */
  readonly fingerprint: string
  readonly publicKeyPem: string
  /** The 32 bytes of the key itself. */
  readonly publicKey: Uint8Array
}

/** Every Ed25519 key in SPKI begins so; 32 bytes follow. */
const spkiStart = Buffer.from('302a300506032b6570032100', 'hex')

/** From PEM, however it is wrapped; its own PEM is the one that Node and openssl write. */
export function publicHalf(pem: string): PublicHalf {
  let key
  try {
    if (/PRIVATE KEY/.test(pem)) throw new ProofError('it is a private key')
    key = createPublicKey(pem)
  } catch (error) {
    if (error instanceof ProofError) throw error
    throw new ProofError('it is no public key in PEM', { cause: error })
  }
  if (key.asymmetricKeyType !== 'ed25519') throw new ProofError('it is no Ed25519 key')
  return halfOfDer(key.export({ type: 'spki', format: 'der' }))
}

export function publicHalfOfRaw(publicKey: Uint8Array): PublicHalf {
  if (publicKey.length !== 32) throw new ProofError('an Ed25519 key has 32 bytes')
  return halfOfDer(Buffer.concat([spkiStart, publicKey]))
}

function halfOfDer(der: Buffer): PublicHalf {
  return {
    fingerprint: sha256Hex(der),
    publicKeyPem: `-----BEGIN PUBLIC KEY-----\n${der.toString('base64')}\n-----END PUBLIC KEY-----\n`,
    publicKey: new Uint8Array(der.subarray(spkiStart.length)),
  }
}

/** One raw signature of 64 bytes over `bytes`. */
export function verifySignature(key: Pick<PublicHalf, 'publicKey'>, bytes: Uint8Array, signature: Uint8Array): boolean {
  if (signature.length !== 64) return false
  const spki = createPublicKey({ key: Buffer.concat([spkiStart, key.publicKey]), format: 'der', type: 'spki' })
  return verify(null, bytes, spki, signature)
}
