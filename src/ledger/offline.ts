import { isUtf8 } from 'node:buffer'
import { hash } from 'node:crypto'
import * as z from 'zod'
import { TmsError } from '../errors.ts'
import { fromBase64, ProofError, toBase64 } from '../proof/bytes.ts'
import type { PublicHalf } from '../proof/ed25519.ts'
import { parseCheckpoint, parseNote, verifyCheckpoint } from '../proof/note.ts'
import { mostFindings, rowsText, type Finding, type Verification } from './findings.ts'

/**
 * Verifies an export without the database: every line against its hash, its successor and its place in the tree; what it says
 * against the hashes in its line; all of it against the root that the checkpoint signs.
 *
 * Hashes are kept as binary strings here and not as Buffers: making a Buffer costs more than the hash. 3.6 µs a row.
 */

const base64 = z.string().regex(/^[A-Za-z0-9+/]{43}=$/)
const count = z.int().min(0)
const headerSchema = z.strictObject({
  type: z.literal('tms-ledger-export-v1'),
  origin: z.string(),
  from: count,
  to: count,
  before: z.array(base64).max(64),
})
const endSchema = z.strictObject({
  after: z.array(base64).max(128),
  size: count,
  root: base64,
  checkpoint: z.string().nullable(),
})

type Header = z.infer<typeof headerSchema>
type Row =
  | { readonly line: string; readonly subject?: string; readonly why?: string; readonly body?: string }
  | { readonly hash: string; readonly leaf: string }

export type OfflineInput = {
  readonly of: string
  readonly key?: PublicHalf | undefined
  /** A checkpoint that was kept elsewhere; of the size of the export's own, or it can't be compared. */
  readonly checkpoint?: string | undefined
}

export async function verifyExport(
  lines: AsyncIterable<readonly string[]>,
  input: OfflineInput,
): Promise<Verification> {
  try {
    return await verifyLines(lines, input)
  } catch (error) {
    if (!(error instanceof ProofError)) throw error
    return broken(input.of, [{ place: 'file', what: error.message, expected: null, found: null }])
  }
}

async function verifyLines(lines: AsyncIterable<readonly string[]>, input: OfflineInput): Promise<Verification> {
  const findings: Finding[] = []
  let more = 0
  const find = (place: string, what: string, expected: string | null = null, found: string | null = null) => {
    if (findings.length < mostFindings) findings.push({ place, what, expected, found })
    else more++
  }
  let header: Header | undefined
  let last: string | undefined
  let rows: ReturnType<typeof startRows> | undefined
  let headless = false
  const noHeader = () => {
    find('first line', 'it is no header of an export')
    return broken(input.of, findings)
  }
  for await (const batch of lines) {
    for (const line of batch) {
      if (headless) {
        if (partOfExport(line)) return noHeader()
      } else if (header === undefined || rows === undefined) {
        header = parsed(headerSchema, line)
        if (header !== undefined && header.to > header.from) rows = startRows(header, find)
        else if (header !== undefined || partOfExport(line)) return noHeader()
        // whether it is a damaged export or something else shows in the lines behind
        else headless = true
      } else {
        // the last line is the end, and which one that is shows when there is no other
        if (last !== undefined) rows.take(last)
        last = line
      }
    }
  }
  if (headless) throw noExport(input.of)
  const end = last === undefined ? undefined : parsed(endSchema, last)
  if (header === undefined || rows === undefined || end === undefined) {
    find('last line', 'the end of the export is missing: the file was cut off')
    return broken(input.of, findings)
  }
  const { checked, hidden } = rows
  if (header.from + rows.taken() !== header.to) {
    find(
      rowsText(header.from, header.to - 1),
      `${rows.taken()} rows are there, and ${header.to - header.from} were announced`,
    )
  }
  const root = rows.root(end.after, end.size)
  if (root === null) find('last line', 'its hashes do not cover the rows behind')
  else if (root !== end.root) find('tree', 'the rows do not lead to the root', end.root, root)
  const checkpoint = signedBy(end.checkpoint, header.origin, end.size, root ?? '', input, find)
  const anchored = checkpoint?.holds === true && checkpoint.signed === true
  return {
    of: input.of,
    verdict: findings.length > 0 ? 'broken' : anchored ? 'verified' : 'unanchored',
    origin: header.origin,
    from: header.from,
    to: header.to,
    checked: checked(),
    hidden: hidden(),
    root: root,
    checkpoint,
    findings,
    more,
    unchecked: [
      ...(end.checkpoint === null ? ['No checkpoint covers these rows: nobody signed them.'] : []),
      ...(input.key ? [] : ['No key was given: who signed was not checked (--key).']),
      ...(hidden() > 0 ? [`Of ${hidden()} rows only hashes are here: what they say was not checked.`] : []),
    ],
  }
}

type Find = (place: string, what: string, expected?: string | null, found?: string | null) => void

/** Takes row after row, and is a Merkle tree of them meanwhile. */
function startRows({ from, before }: Header, find: Find) {
  const tree = startCover()
  if (!tree.cover(before, 0, from)) find('first line', 'its hashes do not cover the rows before')
  let at = from
  let checked = 0
  let hidden = 0
  let previous = from === 0 ? '0'.repeat(64) : null
  const take = (text: string) => {
    const place = `row ${at}`
    const row = parsedRow(text)
    if (row === undefined) {
      find(place, 'it is no row of an export')
      previous = null
      tree.add('', 0)
    } else if ('leaf' in row) {
      hidden++
      previous = row.hash
      tree.add(binary(row.leaf), 0)
    } else {
      const { line, subject, why, body } = row
      checked++
      const fields = line.split('\n')
      if (fields.length !== 16 || fields[0] !== 'tms-ledger-v1') find(place, 'its line has not the form of a line')
      if (fields[1] !== String(at)) find(place, 'its line is of another place', String(at), fields[1])
      if (previous !== null && fields[2] !== previous)
        find(place, 'it does not follow the row before it', previous, fields[2])
      if (subject !== undefined && hash('sha256', subject) !== fields[12])
        find(place, 'its subject is not the one in its line')
      if (why !== undefined && hash('sha256', why) !== fields[13]) find(place, 'its reason is not the one in its line')
      if (body !== undefined && hash('sha256', body) !== fields[15]) find(place, 'its body is not the one in its line')
      previous = hash('sha256', line)
      tree.add(hash('sha256', `\0${line}`, 'binary'), 0)
    }
    at++
  }
  return {
    take,
    taken: () => at - from,
    checked: () => checked,
    hidden: () => hidden,
    /** The root with the subtrees behind; null when they don't cover the rest. */
    root: (after: readonly string[], size: number): string | null => (tree.cover(after, at, size) ? tree.root() : null),
  }
}

/** A tree that takes leaves and whole subtrees from left to right. */
function startCover() {
  const peaks: string[] = []
  let size = 0
  const pair = Buffer.alloc(65)
  pair[0] = 1
  const node = (left: string, right: string) => {
    pair.write(left, 1, 32, 'latin1')
    pair.write(right, 33, 32, 'latin1')
    return hash('sha256', pair, 'binary')
  }
  const add = (leaf: string, level: number) => {
    let top = leaf
    for (let full = size / 2 ** level; full % 2 === 1; full = (full - 1) / 2) top = node(peaks.pop() ?? '', top)
    peaks.push(top)
    size += 2 ** level
  }
  return {
    add,
    /** Subtrees that stand for [from, to), as large as they fit. */
    cover(hashes: readonly string[], from: number, to: number): boolean {
      let at = from
      for (const part of hashes) {
        let level = 0
        while (at % 2 ** (level + 1) === 0 && 2 ** (level + 1) <= to - at) level++
        if (at >= to) return false
        add(binary(part), level)
        at += 2 ** level
      }
      return at === to
    },
    root: () =>
      Buffer.from(peaks.length === 0 ? '' : peaks.reduceRight((right, left) => node(left, right)), 'latin1').toString(
        'base64',
      ),
  }
}

function binary(hash64: string): string {
  return Buffer.from(hash64, 'base64').toString('latin1')
}

function parsed<T>(schema: z.ZodType<T>, line: string): T | undefined {
  const { success, data } = schema.safeParse(json(line))
  return success ? data : undefined
}

/** By hand: a schema for each row costs more than its hashes. Exactly these keys, so that none can be misspelled away. */
function parsedRow(line: string): Row | undefined {
  const row = json(line)
  if (typeof row !== 'object' || row === null) return undefined
  const keys = Object.keys(row).join()
  if (!['line,subject,why,body', 'line', 'hash,leaf'].includes(keys)) return undefined
  if (!Object.values(row).every((value) => typeof value === 'string')) return undefined
  if (
    'leaf' in row &&
    (!/^[A-Za-z0-9+/]{43}=$/.test(String(row.leaf)) || !/^[0-9a-f]{64}$/.test(String('hash' in row && row.hash)))
  )
    return undefined
  // true because its keys are those of a row and its values are texts
  return row as Row
}

function partOfExport(line: string): boolean {
  return parsedRow(line) !== undefined || parsed(endSchema, line) !== undefined
}

function noExport(of: string): TmsError {
  return new TmsError({
    code: 'INPUT_INVALID',
    what: `${of} is no export of a ledger`,
    why: 'it has neither the first line of one, nor a row, nor an end',
    next: ['tms ledger export --out <file>'],
  })
}

function json(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}

function signedBy(
  own: string | null,
  origin: string,
  size: number,
  root: string,
  { key, checkpoint }: OfflineInput,
  find: Find,
): Verification['checkpoint'] {
  if (own === null && checkpoint === undefined) return null
  let signed: boolean | null = null
  let holds = true
  for (const [place, note] of [
    ['checkpoint in the export', own],
    ['checkpoint', checkpoint],
  ] as const) {
    if (note === null || note === undefined) continue
    try {
      const claim = parseCheckpoint(parseNote(note).text)
      if (key) {
        verifyCheckpoint(note, origin, key)
        signed ??= true
      }
      if (claim.origin !== origin) throw new ProofError(`it is of ${claim.origin}, and the rows are of ${origin}`)
      if (claim.size !== size) {
        throw new ProofError(
          `it is of ${claim.size} rows, and the export leads to ${size}: export up to it, or ask the database`,
        )
      }
      if (toBase64(claim.root) !== toBase64(fromBase64(root, 32)))
        throw new ProofError('the rows do not lead to its root')
    } catch (error) {
      if (!(error instanceof ProofError)) throw error
      holds = false
      if (key) signed = false
      find(place, error.message)
    }
  }
  return { size, holds, signed }
}

function broken(of: string, findings: readonly Finding[]): Verification {
  const nothing = {
    origin: null,
    from: 0,
    to: 0,
    checked: 0,
    hidden: 0,
    root: null,
    checkpoint: null,
    more: 0,
    unchecked: [],
  }
  return { of, verdict: 'broken', findings, ...nothing }
}

/**
 * A file's lines, a piece of it at a time. A last line without its end counts: cutting it off must not go unseen. Lines are
 * cut before they are decoded: splitting a decoded text took seven times as long.
 */
export async function* linesOf(chunks: AsyncIterable<Buffer>): AsyncIterable<readonly string[]> {
  let rest: Buffer = Buffer.alloc(0)
  for await (const chunk of chunks) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    const lines: string[] = []
    let start = 0
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, start)) {
      lines.push(bytes.toString('utf8', start, end))
      start = end + 1
    }
    if (!isUtf8(bytes.subarray(0, start))) throw new ProofError('it is not UTF-8')
    rest = bytes.subarray(start)
    yield lines
  }
  if (!isUtf8(rest)) throw new ProofError('it is not UTF-8')
  if (rest.length > 0) yield [rest.toString()]
}
