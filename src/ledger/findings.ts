import type { RowFinding } from '../drivers/contract/ledger.ts'

/** Something that doesn't fit, with its place. */
export type Finding = {
  /** For instance `row 17`, `rows 5-900`, `checkpoint of 128 rows`. */
  readonly place: string
  readonly what: string
  readonly expected: string | null
  readonly found: string | null
}

export type Verification = {
  /** The database or the file. */
  readonly of: string
  /**
   * broken: something doesn't fit. unsealed: what is sealed fits, and rows that waited for long couldn't be sealed.
   * unanchored: all fits together, and whoever may write everything could have made it fit. verified: it also fits what is
   * known from outside: a key and a checkpoint. empty: there is nothing to verify.
   */
  readonly verdict: 'verified' | 'unanchored' | 'unsealed' | 'broken' | 'empty'
  readonly origin: string | null
  readonly from: number
  readonly to: number
  /** Rows whose line was hashed again. */
  readonly checked: number
  /** Rows of which only hashes were there to check. */
  readonly hidden: number
  readonly root: string | null
  readonly checkpoint: {
    readonly size: number
    /** Whether the rows still lead to its root; null: it couldn't be asked. */
    readonly holds: boolean
    /** Null: no key was given to check its signature with. */
    readonly signed: boolean | null
  } | null
  readonly findings: readonly Finding[]
  /** Findings beyond those that are named. */
  readonly more: number
  /** What this did not look at, in sentences. */
  readonly unchecked: readonly string[]
}

/** A ledger that is all wrong is said in a page, not in a million lines. */
export const mostFindings = 200

const sentences: Record<RowFinding['kind'], string> = {
  gap: 'missing in the sealed ledger',
  missing: 'sealed, and gone from the inbox',
  body: 'its body is not the one that was hashed',
  line: 'it says something else than when it was sealed',
  chain: 'it does not follow the row before it',
  leaf: 'its place in the tree is not its hash',
  runs: 'the digests of runs that it speaks of were changed',
  node: 'the tree above it does not fit its rows',
}

/** The rows' findings in words; neighbours with the same trouble are one. */
export function inWords(rows: readonly RowFinding[]): Finding[] {
  const findings: {
    kind: RowFinding['kind']
    from: number
    to: number
    expected: string | null
    found: string | null
  }[] = []
  for (const row of rows) {
    const from = Number(row.kind === 'gap' ? (row.from ?? row.seq) : row.seq)
    const to =
      row.kind === 'gap' ? Number(row.to ?? row.seq) : row.kind === 'node' ? from + 2 ** (row.level ?? 0) - 1 : from
    const last = findings.at(-1)
    if (last && last.kind === row.kind && row.kind !== 'node' && last.to + 1 === from) {
      last.to = to
      last.expected = null
      last.found = null
    } else {
      findings.push({ kind: row.kind, from, to, expected: row.expected ?? null, found: row.found ?? null })
    }
  }
  return findings.map(({ kind, from, to, expected, found }) => ({
    place: rowsText(from, to),
    what: sentences[kind],
    expected,
    found,
  }))
}

export function rowsText(from: number, to: number): string {
  return from === to ? `row ${from}` : `rows ${from}-${to}`
}
