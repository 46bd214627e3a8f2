import { fromBase64, fromDecimal, ProofError, toBase64 } from './bytes.ts'
import { parseCheckpoint, parseNote } from './note.ts'

/** A leaf's place in a log, with all that is needed to check it without the log (C2SP tlog-proof). */
export type TlogProof = {
  readonly index: number
  /** The hashes beside the leaf's way to the root, lowest first. */
  readonly hashes: readonly Uint8Array[]
  /** The signed note that the way leads to. */
  readonly checkpoint: string
  /** Whatever the application adds; not covered by any signature. */
  readonly extra?: Uint8Array
}

const header = 'c2sp.org/tlog-proof@v1'
/** A tree of 2^63 leaves needs no more. */
const mostHashes = 63

export function formatTlogProof({ index, hashes, checkpoint, extra }: TlogProof): string {
  const lines = [
    header,
    ...(extra ? [`extra ${toBase64(extra)}`] : []),
    `index ${index}`,
    ...hashes.map((hash) => toBase64(hash)),
  ]
  const text = `${lines.join('\n')}\n\n${checkpoint}`
  parseTlogProof(text)
  return text
}

/** The parts; neither the way nor the checkpoint's signature is verified here. */
export function parseTlogProof(text: string): TlogProof {
  const end = text.indexOf('\n\n')
  if (end < 0) throw new ProofError('the empty line before the checkpoint is missing')
  const checkpoint = text.slice(end + 2)
  const lines = text.slice(0, end).split('\n')
  if (lines.shift() !== header) throw new ProofError(`its first line is not ${header}`)
  const extra = lines[0]?.startsWith('extra ') ? fromBase64(lines.shift()?.slice('extra '.length) ?? '') : undefined
  const [, number] = /^index (\d+)$/.exec(lines.shift() ?? '') ?? []
  if (number === undefined) throw new ProofError('the line with the index is missing')
  const index = fromDecimal(number)
  if (lines.length > mostHashes) throw new ProofError('it has too many hashes')
  const hashes = lines.map((line) => fromBase64(line, 32))
  const { size } = parseCheckpoint(parseNote(checkpoint).text)
  if (index >= size) throw new ProofError(`its index ${index} is beyond the checkpoint's ${size} leaves`)
  return { index, hashes, checkpoint, ...(extra ? { extra } : {}) }
}

/** The note of a file that is one, or that is a proof and ends with one. */
export function noteIn(text: string): string {
  return text.startsWith('c2sp.org/tlog-proof@') ? parseTlogProof(text).checkpoint : text
}
