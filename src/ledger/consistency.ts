import { fromBase64, fromDecimal, ProofError, toBase64 } from '../proof/bytes.ts'

/** That a ledger of `to` rows begins with the ledger of `from` rows, as a file. */
export type Consistency = {
  readonly origin: string
  readonly from: { readonly size: number; readonly root: Uint8Array }
  readonly to: { readonly size: number; readonly root: Uint8Array }
  readonly hashes: readonly Uint8Array[]
}

const header = 'tms-consistency-v1'

export function formatConsistency({ origin, from, to, hashes }: Consistency): string {
  const lines = [
    header,
    origin,
    `${from.size} ${toBase64(from.root)}`,
    `${to.size} ${toBase64(to.root)}`,
    ...hashes.map((hash) => toBase64(hash)),
  ]
  return `${lines.join('\n')}\n`
}

/** One reading for each file; anything else is a ProofError. */
export function parseConsistency(text: string): Consistency {
  if (!text.endsWith('\n')) throw new ProofError('its last line has no end')
  const [first, origin, from, to, ...hashes] = text.slice(0, -1).split('\n')
  if (first !== header) throw new ProofError(`its first line is not ${header}`)
  if (origin === undefined || !/^[^\s+]+$/.test(origin)) throw new ProofError('its second line is no origin')
  if (hashes.length > 64) throw new ProofError('it has too many hashes')
  return { origin, from: parseHead(from), to: parseHead(to), hashes: hashes.map((hash) => fromBase64(hash, 32)) }
}

function parseHead(line = ''): Consistency['from'] {
  const [size = '', root = '', ...more] = line.split(' ')
  if (more.length > 0) throw new ProofError('a line with size and root has two words')
  return { size: fromDecimal(size), root: fromBase64(root, 32) }
}
