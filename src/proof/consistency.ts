import { fromBase64, fromDecimal, ProofError, toBase64 } from './bytes.ts'

/** That a ledger of `to` rows begins with the ledger of `from` rows, as a file. */
export type Consistency = {
  readonly origin: string
  readonly from: { readonly size: number; readonly root: Uint8Array }
  readonly to: { readonly size: number; readonly root: Uint8Array }
  readonly hashes: readonly Uint8Array[]
}

const consistencyHeader = 'tms-consistency-v1'

export function formatConsistency({ origin, from, to, hashes }: Consistency): string {
  return [consistencyHeader, origin, treeLine(from), treeLine(to), ...hashes.map(toBase64), ''].join('\n')
}

export function parseConsistency(text: string): Consistency {
  if (!text.endsWith('\n')) throw new ProofError('its last line has no end')
  const [header, origin = '', from = '', to = '', ...hashes] = text.slice(0, -1).split('\n')
  if (header !== consistencyHeader) throw new ProofError(`its first line is not ${consistencyHeader}`)
  if (hashes.length > 130) throw new ProofError('it has too many hashes')
  const parsed = {
    origin,
    from: parseTree(from),
    to: parseTree(to),
    hashes: hashes.map((hash) => fromBase64(hash, 32)),
  }
  if (parsed.from.size > parsed.to.size) throw new ProofError('it leads from a larger tree to a smaller one')
  return parsed
}

function treeLine({ size, root }: Consistency['from']): string {
  return `${size} ${toBase64(root)}`
}

function parseTree(line: string): Consistency['from'] {
  const [size = '', root = '', more] = line.split(' ')
  if (more !== undefined) throw new ProofError('a size and a root stand on a line, nothing else')
  return { size: fromDecimal(size), root: fromBase64(root, 32) }
}
