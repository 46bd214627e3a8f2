import type { Signer } from '../keys/signer.ts'
import { fromBase64, fromDecimal, ProofError, sameBytes, sha256, toBase64 } from './bytes.ts'
import { verifySignature, type PublicHalf } from './ed25519.ts'

/**
 * Signed notes and checkpoints as C2SP writes them (signed-note, tlog-checkpoint, tlog-cosignature): text, an empty line,
 * one line a signature. One reading for each note: other spellings are refused, not understood.
 */

export type Checkpoint = { readonly origin: string; readonly size: number; readonly root: Uint8Array }

export type NoteSignature = { readonly name: string; readonly keyId: Uint8Array; readonly signature: Uint8Array }

export type Note = {
  /** With the newline at its end: what is signed. */
  readonly text: string
  readonly signatures: readonly NoteSignature[]
}

/** Larger is no note of ours: a wrong file, or an attack on the parser. The limits of Go's sumdb/note. */
const longestNote = 1_000_000
const mostSignatures = 100

const algorithm = { ed25519: 0x01, cosignature: 0x04 } as const

// ---- checkpoints

/** The text of a checkpoint, unsigned. */
export function makeCheckpoint({ origin, size, root }: Checkpoint): string {
  if (!isName(origin)) throw new ProofError('the origin of a log has no blanks and no plus sign')
  if (!Number.isSafeInteger(size) || size < 0) throw new ProofError(`${size} is no size of a log`)
  if (root.length !== 32) throw new ProofError('the root of a log has 32 bytes')
  return `${origin}\n${size}\n${toBase64(root)}\n`
}

/** From a note's text. Extension lines are refused: our logs write none. */
export function parseCheckpoint(text: string): Checkpoint {
  const [origin = '', size = '', root = '', end, ...more] = text.split('\n')
  if (end !== '' || more.length > 0) throw new ProofError('a checkpoint has three lines: origin, size, root')
  if (!isName(origin)) throw new ProofError("the checkpoint's first line is no origin")
  return {
    origin,
    size: described("the checkpoint's size", () => fromDecimal(size)),
    root: described("the checkpoint's root", () => fromBase64(root, 32)),
  }
}

// ---- notes

/** A note with one signature. A log signs its checkpoints under its origin as the name. */
export async function signNote(text: string, name: string, signer: Signer): Promise<string> {
  const signature = await signer.sign(Buffer.from(checkedText(text)))
  return formatNote({ text, signatures: [{ name, keyId: keyId(name, signer, 'ed25519'), signature }] })
}

export function formatNote({ text, signatures }: Note): string {
  const lines = signatures.map(({ name, keyId: id, signature }) => {
    if (!isName(name)) throw new ProofError('the name of a key has no blanks and no plus sign')
    return `— ${name} ${toBase64(Buffer.concat([id, signature]))}\n`
  })
  return `${checkedText(text)}\n${lines.join('')}`
}

/** The parts of a note, unverified. */
export function parseNote(note: string): Note {
  if (note.length > longestNote) throw new ProofError('it is too large for a note')
  const end = note.lastIndexOf('\n\n')
  if (end < 0) throw new ProofError('the empty line between text and signatures is missing')
  const text = checkedText(note.slice(0, end + 1))
  const lines = note.slice(end + 2)
  if (!lines.endsWith('\n')) throw new ProofError('its last line has no end')
  const signatures = lines.slice(0, -1).split('\n').map(parseSignatureLine)
  if (signatures.length > mostSignatures) throw new ProofError('it has too many signatures')
  const keys = signatures.map(({ name, keyId: id }) => `${name} ${toBase64(id)}`)
  if (new Set(keys).size < keys.length) throw new ProofError('two of its signatures are by the same key')
  return { text, signatures }
}

function parseSignatureLine(line: string): NoteSignature {
  const [, name = '', encoded = ''] = /^— (\S+) (\S+)$/.exec(line) ?? []
  if (!isName(name)) throw new ProofError('a line after the text is no signature')
  const bytes = described('a signature', () => fromBase64(encoded))
  if (bytes.length < 5) throw new ProofError('a signature is too short')
  return { name, keyId: bytes.slice(0, 4), signature: bytes.slice(4) }
}

/** The note, if this key signed it under this name; else a ProofError. Signatures by other keys say nothing here. */
export function verifyNote(note: string, name: string, key: PublicHalf): Note {
  const parsed = parseNote(note)
  const own = signatureBy(parsed, name, key, 'ed25519')
  if (!own) throw new ProofError(`it is not signed by ${name} with the key ${short(key)}`)
  if (!verifySignature(key, Buffer.from(parsed.text), own.signature)) {
    throw new ProofError(`the signature of ${name} with the key ${short(key)} is wrong`)
  }
  return parsed
}

/** The checkpoint of a note that its log signed with this key. The key's name is the origin. */
export function verifyCheckpoint(note: string, origin: string, key: PublicHalf): Checkpoint {
  const checkpoint = parseCheckpoint(verifyNote(note, origin, key).text)
  if (checkpoint.origin !== origin) throw new ProofError(`it is a checkpoint of ${checkpoint.origin}, not of ${origin}`)
  return checkpoint
}

// ---- witnesses

export type Witness = {
  readonly name: string
  readonly signer: Signer
  /** Seconds since 1970. */ readonly time: number
}

/** The note with a witness's signature, which replaces an earlier one of the same witness. */
export async function cosign(note: string, { name, signer, time }: Witness): Promise<string> {
  if (!Number.isSafeInteger(time) || time < 0) throw new ProofError(`${time} is no time of a cosignature`)
  const { text, signatures } = parseNote(note)
  parseCheckpoint(text)
  const id = keyId(name, signer, 'cosignature')
  const signature = Buffer.concat([bigEndian(time), await signer.sign(cosigned(text, time))])
  const others = signatures.filter((other) => other.name !== name || !sameBytes(other.keyId, id))
  return formatNote({ text, signatures: [...others, { name, keyId: id, signature }] })
}

/** When the witness saw the checkpoint, if it signed it; else a ProofError. */
export function verifyCosignature(note: string, name: string, key: PublicHalf): { readonly time: number } {
  const parsed = parseNote(note)
  const own = signatureBy(parsed, name, key, 'cosignature')
  if (!own) throw new ProofError(`it is not cosigned by ${name} with the key ${short(key)}`)
  const time = own.signature.length === 72 ? Number(Buffer.from(own.signature).readBigUInt64BE(0)) : NaN
  const signature = own.signature.slice(8)
  if (!Number.isSafeInteger(time) || !verifySignature(key, cosigned(parsed.text, time), signature)) {
    throw new ProofError(`the cosignature of ${name} with the key ${short(key)} is wrong`)
  }
  return { time }
}

export type Seen = {
  readonly seen: readonly { readonly name: string; readonly key: PublicHalf; readonly time: number }[]
  /** Witnesses by name whose signature nobody checked: what it says, its time too, is anybody's word. */
  readonly unchecked: readonly string[]
}

/** What these keys cosigned, under whatever name. A ProofError when one of them did not, or its signature is wrong. */
export function seenBy(note: string, keys: readonly PublicHalf[]): Seen {
  const lines = parseNote(note).signatures.filter(({ signature }) => signature.length === 72)
  const isBy = (key: PublicHalf) => (line: NoteSignature) => sameBytes(line.keyId, keyId(line.name, key, 'cosignature'))
  const seen = keys.flatMap((key) => {
    const own = lines.filter(isBy(key))
    if (own.length === 0) throw new ProofError(`it is not cosigned by the witness's key ${short(key)}`)
    return own.map(({ name }) => ({ name, key, ...verifyCosignature(note, name, key) }))
  })
  const unchecked = lines.filter((line) => !keys.some((key) => isBy(key)(line))).map(({ name }) => name)
  return { seen, unchecked }
}

function cosigned(text: string, time: number): Buffer {
  return Buffer.from(`cosignature/v1\ntime ${time}\n${text}`)
}

function bigEndian(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}

// ---- parts

/** What a verifier is configured with in other implementations: `<name>+<key id>+<base64 of type and key>`. */
export function verifierKey(name: string, key: PublicHalf, kind: keyof typeof algorithm = 'ed25519'): string {
  const id = Buffer.from(keyId(name, key, kind)).toString('hex')
  return `${name}+${id}+${toBase64(Buffer.concat([Buffer.of(algorithm[kind]), key.publicKey]))}`
}

function keyId(name: string, { publicKey }: PublicHalf, kind: keyof typeof algorithm): Uint8Array {
  return sha256(name, Uint8Array.of(0x0a, algorithm[kind]), publicKey).slice(0, 4)
}

function signatureBy(
  { signatures }: Note,
  name: string,
  key: PublicHalf,
  kind: keyof typeof algorithm,
): NoteSignature | undefined {
  const id = keyId(name, key, kind)
  return signatures.find((other) => other.name === name && sameBytes(other.keyId, id))
}

function checkedText(text: string): string {
  if (!text.endsWith('\n')) throw new ProofError('the text of a note ends with a newline')

  if (/[\u0000-\u0009\u000b-\u001f\u007f]|\p{Surrogate}/u.test(text)) {
    throw new ProofError('the text of a note has no control characters')
  }
  return text
}

export function isName(name: string): boolean {
  return /^[^\s+\p{Cc}\p{Surrogate}]+$/u.test(name)
}

function described<T>(what: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    throw error instanceof ProofError ? new ProofError(`${what}: ${error.message}`) : error
  }
}

function short({ fingerprint }: PublicHalf): string {
  return `${fingerprint.slice(0, 16)}…`
}
