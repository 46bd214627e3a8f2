import { readFile, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { TmsError } from '../errors.ts'
import { ProofError, textOf } from '../proof/bytes.ts'
import { publicHalf, type PublicHalf } from '../proof/ed25519.ts'
import { noteIn } from '../proof/tlog-proof.ts'
import { archiveSource } from './verify-archive.ts'
import { parseConsistency } from '../proof/consistency.ts'
import { namedDay } from './named-day.ts'
import { isDay, parseManifest, readRange, type Range } from './verify-forms.ts'
import { daysSource, folderSource, packSource, systemCode, type Source } from './verify-source.ts'
import { verifyEvidence, type OutsideCheckpoint, type OutsideProof, type Verification } from './verify.ts'

/** From what people type to what is verified. Nothing here opens a database or the network. */

/** Larger is no key, checkpoint or proof. */
const largestInput = 2_000_000

/** What `tms evidence verify` does with what it is given. */
export async function verifyFrom(given: {
  readonly what: string
  readonly artifacts: () => Promise<string>
  readonly key?: string | undefined
  readonly checkpoint?: string | undefined
  readonly knownSince?: string | undefined
  readonly witnessKey?: readonly string[] | undefined
  readonly proof?: readonly string[] | undefined
  readonly days?: string | undefined
}): Promise<Verification> {
  const since = given.knownSince === undefined ? null : parseMoment(given.knownSince)
  const { source, range } = await openSource(given.what, given)
  const witnesses = (await Promise.all((given.witnessKey ?? []).map(readKeys))).flat()
  return verifyEvidence(source, {
    keys: given.key === undefined ? [] : await readKeys(given.key),
    checkpoint: given.checkpoint === undefined ? null : await readCheckpoint(given.checkpoint, since),
    witnesses,
    proofs: await Promise.all((given.proof ?? []).map(readProof)),
    range,
  })
}

/** Keys from outside: one file, with one PEM block or several (`tms evidence keys export --all`). */
export async function readKeys(path: string): Promise<readonly PublicHalf[]> {
  const text = await readInput(path, 'the key')
  const blocks = text.match(/-----BEGIN [A-Z ]+-----[^-]+-----END [A-Z ]+-----/g) ?? []
  const wrong = (why: string) =>
    new TmsError({
      code: 'INPUT_INVALID',
      what: `${path} is no public key`,
      why,
      next: ['tms evidence keys export', 'tms evidence verify --help'],
    })
  if (blocks.length === 0) throw wrong('it has no PEM block')
  try {
    return blocks.map((block) => publicHalf(block))
  } catch (error) {
    if (error instanceof ProofError) throw wrong(error.message)
    throw error
  }
}

/** A checkpoint that somebody kept: the note, a proof that has one in it, or the whole pack of an earlier day. */
export async function readCheckpoint(path: string, since: string | null): Promise<OutsideCheckpoint> {
  const folder = await isFolder(path)
  const file = folder ? join(path, 'checkpoint.txt') : path
  const text = await readInput(file, 'the checkpoint')
  try {
    const note = noteIn(text)
    const known = since ?? (folder ? await asOf(path) : null)
    return { name: basename(path), path: file, note, since: known }
  } catch (error) {
    // What it is worth is for the verification to say: here it is only read.
    if (error instanceof ProofError) return { name: basename(path), path: file, note: text, since }
    throw error
  }
}

async function asOf(folder: string): Promise<string | null> {
  return parseManifest(await readInput(join(folder, 'manifest.json'), 'the manifest')).as_of
}

export async function readProof(path: string): Promise<OutsideProof> {
  const text = await readInput(path, 'the proof')
  try {
    return { name: basename(path), consistency: parseConsistency(text) }
  } catch (error) {
    if (!(error instanceof ProofError)) throw error
    throw new TmsError({
      code: 'INPUT_INVALID',
      what: `${path} is no proof of consistency`,
      why: error.message,
      next: ['tms ledger prove --help'],
    })
  }
}

/** A folder, an archive, a day or a range of days of the artifacts folder. */
export async function openSource(
  what: string,
  { artifacts, days }: { readonly artifacts: () => Promise<string>; readonly days?: string | undefined },
): Promise<{ readonly source: Source; readonly range: Range | null }> {
  const given = days === undefined ? null : parseRange(days)
  const exists = await isThere(what)
  if (!exists) {
    const named = what === 'today' || what === 'yesterday' ? namedDay(what, new Date()) : what
    const range = /^[\d-]+\.\.[\d-]+$/.test(named) ? parseRange(named) : readRange(named)
    if (range) {
      const folder = await artifacts()
      if (range.from === range.to && !what.includes('..')) {
        return { source: await packSource(join(folder, range.from)), range: given }
      }
      return { source: withinRange(await daysSource(folder), range), range }
    }
  }
  const source = exists && !(await isFolder(what)) ? await archiveSource(what) : await folderSource(what)
  return { source: given ? withinRange(source, given) : source, range: given }
}

/** Only the days asked for, and what they stand on. */
function withinRange(source: Source, { from, to }: Range): Source {
  return {
    ...source,
    packs: source.packs.filter(({ folder }) => folder >= from && folder <= to),
    tombstones: source.tombstones.filter(({ file }) => file >= from && file.slice(0, 10) <= to),
  }
}

export function parseRange(text: string): Range {
  const range = readRange(text)
  if (range) return range
  throw new TmsError({
    code: 'USAGE',
    what: `${text} is no range of days.`,
    why: 'It is written 2026-10-01..2026-10-31, the earlier day first.',
    next: ['tms evidence verify 2026-10-01..2026-10-31 --key key.pem'],
  })
}

/** `--known-since`: a day, or a moment in UTC. */
export function parseMoment(text: string): string {
  const moment = isDay(text) ? `${text}T00:00:00Z` : text
  const time = new Date(moment)
  if (/Z$/.test(moment) && !Number.isNaN(time.getTime())) return microseconds(time)
  throw new TmsError({
    code: 'USAGE',
    what: `${text} is no moment.`,
    why: 'It is a day, 2026-10-31, or a time in UTC, 2026-10-31T09:30:00Z.',
    next: ['tms evidence verify --help'],
  })
}

function microseconds(time: Date): string {
  return time.toISOString().replace('Z', '000Z')
}

async function readInput(path: string, what: string): Promise<string> {
  try {
    const { size } = await stat(path)
    if (size > largestInput) throw new ProofError(`it has ${size} bytes`)
    return textOf(await readFile(path))
  } catch (error) {
    const code = error instanceof ProofError ? error.message : `the system says ${systemCode(error)}`
    throw new TmsError(
      {
        code: code.includes('ENOENT') ? 'NOT_FOUND' : 'FILE_UNREADABLE',
        what: `${what} ${path} can't be read`,
        why: code,
        next: [`ls -l ${path}`],
      },
      { cause: error },
    )
  }
}

async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null)) !== null
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isDirectory() ?? false
}
