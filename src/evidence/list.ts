import { TmsError } from '../errors.ts'
import { ProofError, sha256Hex, textOf } from '../proof/bytes.ts'
import { parseCanonicalFile, type Canonical } from '../proof/canonical.ts'
import { parseManifest, readTombstone, type Manifest, type Tombstone } from './verify-forms.ts'
import { parseBundle } from '../proof/sigstore.ts'
import { daysSource, type Entries, type Source } from './verify-source.ts'

/** What lies in the artifacts folder, as it says itself. Whether it is true is for `verify`. */

export type ListedDay = {
  readonly day: string
  readonly kind: 'final' | 'provisional' | 'tombstone' | 'unreadable'
  readonly revision: number | null
  readonly says: Manifest['verdict'] | null
  readonly as_of: string | null
  readonly files: number
  readonly bytes: number
}

export type EvidenceList = { readonly root: string; readonly days: readonly ListedDay[] }

export async function listEvidence(root: string): Promise<EvidenceList> {
  const source = await daysSource(root).catch((error: unknown) => {
    if (error instanceof TmsError && error.code === 'NOT_FOUND') return null
    throw error
  })
  const days = new Map<string, ListedDay>()
  for (const { file } of source?.tombstones ?? []) {
    const day = file.replace(/\.json$/, '')
    days.set(day, { day, kind: 'tombstone', revision: null, says: null, as_of: null, files: 1, bytes: 0 })
  }
  for (const { folder, read } of source?.packs ?? []) {
    const entries = await read()
    const manifest = manifestIn(entries)
    days.set(folder, {
      day: folder,
      kind: manifest === null ? 'unreadable' : manifest.final ? 'final' : 'provisional',
      revision: manifest?.revision ?? null,
      says: manifest?.verdict ?? null,
      as_of: manifest?.as_of ?? null,
      files: entries.size,
      bytes: [...entries.values()].reduce((sum, entry) => sum + (entry.kind === 'file' ? entry.bytes.length : 0), 0),
    })
  }
  return { root, days: [...days.values()].sort((a, b) => (a.day < b.day ? -1 : 1)) }
}

export type ShownDay = {
  readonly day: string
  readonly manifest: Manifest | null
  readonly manifest_sha256: string | null
  readonly tombstone: Tombstone | null
  readonly files: readonly { readonly name: string; readonly bytes: number }[]
}

export async function showEvidence(root: string, day: string): Promise<ShownDay> {
  const source = await daysSource(root)
  const entries = await source.packs.find(({ folder }) => folder === day)?.read()
  const grave = await source.tombstones.find(({ file }) => file === `${day}.json`)?.read()
  if (!entries && !grave) throw noSuchDay(day, source)
  const bytes = entries?.get('manifest.json')
  return {
    day,
    manifest: entries ? manifestIn(entries) : null,
    manifest_sha256: bytes?.kind === 'file' ? sha256Hex(bytes.bytes) : null,
    tombstone: grave?.kind === 'file' ? unsignedTombstone(grave.bytes) : null,
    files: [...(entries ?? [])].map(([name, entry]) => ({
      name,
      bytes: entry.kind === 'file' ? entry.bytes.length : 0,
    })),
  }
}

function manifestIn(entries: Entries): Manifest | null {
  const entry = entries.get('manifest.json')
  return entry?.kind === 'file' ? quietly(() => parseManifest(textOf(entry.bytes))) : null
}

/** What it says, whoever signed it: this is no verification. */
function unsignedTombstone(bytes: Uint8Array): Tombstone | null {
  return quietly(() => {
    const { envelope } = parseBundle(textOf(bytes))
    return readTombstone(parseCanonicalFile(`${Buffer.from(envelope.payload, 'base64').toString()}\n`))
  })
}

function quietly<T>(read: () => T): T | null {
  try {
    return read()
  } catch (error) {
    if (error instanceof ProofError) return null
    throw error
  }
}

function noSuchDay(day: string, { packs, tombstones }: Source): TmsError {
  const earlier = packs.some(({ folder }) => folder < day) || tombstones.some(({ file }) => file < day)
  // a day before all others, or one that has not come, would be refused
  const buildable = earlier && day <= new Date().toISOString().slice(0, 10)
  return new TmsError({
    code: 'NOT_FOUND',
    what: `there is no pack of ${day}`,
    why: 'neither a pack nor a tombstone of that day lies in the artifacts folder',
    next: [...(buildable ? [`tms evidence build --date ${day}`] : []), 'tms evidence list'],
  })
}

/** The facts of a day, by file. Text files are lists of their lines. */
export async function factsOf(root: string, day: string): Promise<ReadonlyMap<string, Canonical>> {
  const source = await daysSource(root)
  const entries = await source.packs.find(({ folder }) => folder === day)?.read()
  if (!entries) throw noSuchDay(day, source)
  const facts = new Map<string, Canonical>()
  for (const name of Object.keys(manifestIn(entries)?.files ?? {})) {
    const entry = entries.get(name)
    if (entry?.kind !== 'file') continue
    const text = Buffer.from(entry.bytes).toString()
    facts.set(name, name.endsWith('.json') ? (quietly(() => parseCanonicalFile(text)) ?? null) : text.split('\n'))
  }
  return facts
}
