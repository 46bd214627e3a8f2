import { hash } from 'node:crypto'

/** A proof that isn't one, or isn't spelled the one way it may be. The message says what was found, in one sentence. */
export class ProofError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'ProofError'
  }
}

/** In one go: `createHash` costs two to three times as much for what is as short as a node of a tree. */
export function sha256(...parts: readonly (Uint8Array | string)[]): Uint8Array {
  const bytes = parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part))
  const digest = hash('sha256', bytes.length === 1 && bytes[0] ? bytes[0] : Buffer.concat(bytes), 'buffer')
  return new Uint8Array(digest.buffer, digest.byteOffset, digest.length)
}

export function sha256Hex(...parts: readonly (Uint8Array | string)[]): string {
  return toHex(sha256(...parts))
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')
}

/** Lower case only: `AB` and `ab` are the same bytes, and one of them must be refused. */
export function fromHex(text: string): Uint8Array {
  if (!/^(?:[0-9a-f]{2})*$/.test(text)) throw new ProofError('it is no lower-case hex')
  return new Uint8Array(Buffer.from(text, 'hex'))
}

export function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')
}

/**
 * The standard alphabet, padded, nothing else. Node reads base64 leniently, and `QQ==` and `QR==` are the same byte: a
 * flipped bit in the unused ones would pass.
 */
export function fromBase64(text: string, length?: number): Uint8Array {
  const bytes = new Uint8Array(Buffer.from(text, 'base64'))
  if (toBase64(bytes) !== text) throw new ProofError('it is no base64, or not its canonical form')
  if (length !== undefined && bytes.length !== length) {
    throw new ProofError(`${length} bytes in base64 were expected, and these are ${bytes.length}`)
  }
  return bytes
}

/** UTF-8 as it must be: a byte that is none would read as U+FFFD, and many files as the same text. */
export function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (error) {
    throw new ProofError('it is not UTF-8', { cause: error })
  }
}

/** A number as `printf %d` writes it: no sign, no leading zero, no more than a double holds exactly. */
export function fromDecimal(text: string): number {
  const value = Number(text)
  if (!/^(?:0|[1-9][0-9]{0,15})$/.test(text) || !Number.isSafeInteger(value)) {
    throw new ProofError('it is no decimal number')
  }
  return value
}
