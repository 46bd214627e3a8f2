import { createHash, randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { open, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Transform, type TransformCallback } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { TmsError } from '../errors.ts'
import { fileProblem, refuseOddTarget } from '../files.ts'
import type { PublicHalf } from '../proof/ed25519.ts'
import { coverHtml, coverText, howToCheck, verifyAllScript } from './archive-pages.ts'
import { trustKeys } from './verify-keys.ts'
import { examinePack } from './verify-pack.ts'
import type { ArchiveFormat, Exported } from './archive-forms.ts'
import { daysSource, rangeFile, type Entries, type Entry, type Source } from './verify-source.ts'
import { verifyEvidence, type OutsideCheckpoint, type Range, type Verification } from './verify.ts'

export type ExportInput = {
  /** The folder of the days. */
  readonly root: string
  readonly range: Range
  readonly format: ArchiveFormat
  readonly out: string
  readonly keys: readonly PublicHalf[]
  readonly checkpoint?: OutsideCheckpoint | null
  readonly allowGaps: boolean
}

/** A zip knows no earlier time, and tells its times in two seconds' steps. */
const always = new Date('1980-01-01T00:00:00Z')
/** An export takes seconds. */
const abandonedMs = 60 * 60_000
const plainName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$/

export function archiveName({ from, to }: Range, format: ArchiveFormat): string {
  return `tms-evidence-${from}-${to}.${format}`
}

/**
 * The days of a range in one archive. The same packs give the same bytes, whenever and wherever it is made: order, times,
 * modes and owners are fixed, and nothing in it tells of the machine. Written under another name first.
 */
export async function exportEvidence(input: ExportInput): Promise<Exported> {
  const { range, format, out } = input
  const { source, digests } = remembered(await daysOf(input))
  const keys = await earlierKeys(input)
  const found = await verifyEvidence(source, { keys, checkpoint: input.checkpoint ?? null, range })
  refuseGaps(found, input)

  const cover = { range, found }
  const top = archiveName(range, format).slice(0, -format.length - 1)
  const pages: readonly (readonly [string, string])[] = [
    ['COVER.html', coverHtml(cover)],
    ['COVER.txt', coverText(cover)],
    ['HOW-TO-CHECK.txt', howToCheck(cover)],
    [rangeFile, `${range.from}..${range.to}\n`],
    ['VERIFY-ALL.sh', verifyAllScript],
  ]
  async function* files(): AsyncGenerator<readonly [string, Uint8Array]> {
    for (const [name, content] of pages) yield [`${top}/${name}`, Buffer.from(content)]
    for (const { folder, read } of source.packs) {
      for (const [name, bytes] of plainFiles(unchanged(digests, folder, await read()))) {
        yield [`${top}/${folder}/${name}`, bytes]
      }
    }
    for (const { file, read } of source.tombstones) {
      const entries = unchanged(digests, file, new Map([[file, await read()]]))
      for (const [name, bytes] of plainFiles(entries)) yield [`${top}/tombstones/${name}`, bytes]
    }
  }
  return { out, format, found, ...(await writeArchive(out, format, files())) }
}

async function daysOf({ root, range: { from, to } }: ExportInput): Promise<Source> {
  const all = await daysSource(root)
  const inside = (name: string) => name.slice(0, 10) >= from && name.slice(0, 10) <= to
  return {
    ...all,
    packs: all.packs.filter(({ folder }) => inside(folder)),
    tombstones: all.tombstones.filter(({ file }) => inside(file)),
    others: [],
  }
}

/** Packs of last year are by last year's key: the newest pack tells of it under this year's. */
async function earlierKeys({ root, keys }: ExportInput): Promise<readonly PublicHalf[]> {
  const { packs } = await daysSource(root)
  const newest = packs.at(-1)
  if (!newest || keys.length === 0) return keys
  const { keys: trusted } = trustKeys(keys, [examinePack(newest.folder, await newest.read())])
  return [...trusted.values()].map(({ half }) => half)
}

function refuseGaps(found: Verification, { allowGaps, range }: ExportInput): void {
  const missing = found.days.filter(({ kind }) => kind === 'missing').map(({ day }) => day)
  const [first] = missing
  if (found.days.every(({ kind }) => kind === 'missing' || kind === 'before')) {
    throw new TmsError({
      code: 'NOT_FOUND',
      what: `there is no pack from ${range.from} to ${range.to}`,
      why: 'neither packs nor tombstones of these days lie in the artifacts folder',
      next: ['tms evidence list', 'tms evidence build --date yesterday'],
    })
  }
  if (first === undefined || allowGaps) return
  throw new TmsError({
    code: 'CONFLICT',
    what: missing.length === 1 ? `the pack of ${first} is missing` : `packs of ${missing.length} days are missing`,
    why: `${missing.join(', ')}: neither a pack nor a tombstone; with --allow-gaps the cover says so`,
    next: [
      `tms evidence build --date ${first}`,
      `tms evidence export --from ${range.from} --to ${range.to} --allow-gaps`,
    ],
  })
}

// ---- what was verified is what is packed

function remembered(source: Source): { readonly source: Source; readonly digests: Map<string, string> } {
  const digests = new Map<string, string>()
  const once = (name: string, entries: Entries): Entries => {
    if (!digests.has(name)) digests.set(name, digestOf(entries))
    return entries
  }
  return {
    digests,
    source: {
      ...source,
      packs: source.packs.map(({ folder, read }) => ({ folder, read: async () => once(folder, await read()) })),
      tombstones: source.tombstones.map(({ file, read }) => ({
        file,
        read: async (): Promise<Entry> => {
          const entry = await read()
          once(file, new Map([[file, entry]]))
          return entry
        },
      })),
    },
  }
}

function unchanged(digests: ReadonlyMap<string, string>, name: string, entries: Entries): Entries {
  if (digests.get(name) === digestOf(entries)) return entries
  throw new TmsError({
    code: 'CONFLICT',
    what: `${name} was changed while it was exported`,
    why: 'what was verified is not what lies there now; nothing was written',
    next: ['tms evidence list'],
  })
}

function digestOf(entries: Entries): string {
  const hash = createHash('sha256')
  for (const [name, entry] of entries) {
    hash.update(`${JSON.stringify(name)} ${entry.kind} `)
    if (entry.kind === 'file') hash.update(createHash('sha256').update(entry.bytes).digest())
  }
  return hash.digest('hex')
}

function plainFiles(entries: Entries): readonly (readonly [string, Uint8Array])[] {
  return [...entries]
    .flatMap(([name, entry]): (readonly [string, Uint8Array])[] =>
      entry.kind === 'file' && plainName.test(name) ? [[name, entry.bytes]] : [],
    )
    .sort(([a], [b]) => (a < b ? -1 : 1))
}

// ---- bytes

async function writeArchive(
  out: string,
  format: ArchiveFormat,
  files: AsyncIterable<readonly [string, Uint8Array]>,
): Promise<{ readonly bytes: number; readonly sha256: string }> {
  const folder = dirname(out)
  const temporary = join(folder, `.${basename(out)}.${randomBytes(6).toString('hex')}.tmp`)
  const { TarArchive, ZipArchive } = await import('archiver')
  const archive = format === 'zip' ? new ZipArchive({ zlib: { level: 9 } }) : new TarArchive({})
  const meter = counted()
  try {
    await refuseOddTarget(out)
    await withoutLeftovers(out)
    const filling = fill(archive, files)
    // A reader that fails ends the writing, too.
    filling.catch((error: unknown) => archive.destroy(error instanceof Error ? error : new Error(String(error))))
    const file = createWriteStream(temporary, { flags: 'wx', flush: true })
    if (format === 'zip') await pipeline(archive, meter.stream, file)
    else await pipeline(archive, createGzip({ level: 9 }), withoutSystem(), meter.stream, file)
    await filling
    await rename(temporary, out)
    await synced(folder)
    return meter.result()
  } catch (error) {
    await rm(temporary, { force: true })
    throw fileProblem(out, error)
  }
}

type Fillable = {
  append(source: Buffer, data: { name: string; date: Date; mode: number }): unknown
  once(event: 'entry', listener: () => void): unknown
  finalize(): Promise<void>
}

/** One after the other, so that no more than a pack is in memory. */
async function fill(archive: Fillable, files: AsyncIterable<readonly [string, Uint8Array]>): Promise<void> {
  for await (const [name, bytes] of files) {
    const taken = new Promise<void>((resolve) => archive.once('entry', resolve))
    archive.append(Buffer.from(bytes), { name, date: always, mode: 0o644 })
    await taken
  }
  await archive.finalize()
}

/** The tenth byte of a gzip names the system it was made on: 255 says nothing. The time is 0 already. */
function withoutSystem(): Transform {
  let at = 0
  return new Transform({
    transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback) {
      const byte = 9 - at
      if (byte >= 0 && byte < chunk.length) chunk[byte] = 255
      at += chunk.length
      done(null, chunk)
    },
  })
}

function counted() {
  const hash = createHash('sha256')
  let bytes = 0
  const stream = new Transform({
    transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback) {
      hash.update(chunk)
      bytes += chunk.length
      done(null, chunk)
    },
  })
  return { stream, result: () => ({ bytes, sha256: hash.digest('hex') }) }
}

/** What a killed export left beside the archive: never the archive itself. Younger ones may be somebody's who is at it. */
async function withoutLeftovers(out: string): Promise<void> {
  const start = `.${basename(out)}.`
  for (const name of await readdir(dirname(out))) {
    if (!name.startsWith(start) || !/^[0-9a-f]{12}\.tmp$/.test(name.slice(start.length))) continue
    const path = join(dirname(out), name)
    const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Infinity }))
    if (Date.now() - mtimeMs > abandonedMs) await rm(path, { force: true })
  }
}

async function synced(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
