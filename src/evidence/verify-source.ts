import { closeSync, constants, fstatSync, openSync, readFileSync, type Dirent } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { TmsError } from '../errors.ts'
import { dayPattern, readRange, type Range } from './verify-forms.ts'

/** Beside the days of an exported archive. */
export const rangeFile = 'RANGE.txt'

/** What lies under one name. Only `file` can be part of a pack; the others are named as what they are. */
export type Entry =
  | { readonly kind: 'file'; readonly bytes: Uint8Array }
  | { readonly kind: 'link' | 'folder' | 'special' | 'too large' }
  | { readonly kind: 'unreadable'; readonly why: string }

export type Entries = ReadonlyMap<string, Entry>

/** Folders of days, wherever they come from. A pack is read when it is its turn: a year of them needn't fit in memory. */
export type Source = {
  /** As a person would name it. */
  readonly name: string
  readonly kind: 'pack' | 'days' | 'archive'
  readonly packs: readonly { readonly folder: string; readonly read: () => Promise<Entries> }[]
  readonly tombstones: readonly { readonly file: string; readonly read: () => Promise<Entry> }[]
  /** What lies there and is neither: it is not looked at. */
  readonly others: readonly string[]
  /** The days that an exported archive says it holds. Nobody signed that. */
  readonly stated?: Range | null
  /** What is wrong with an archive itself. */
  readonly problems?: readonly { readonly file: string; readonly what: string }[]
  /** What lies beside a single pack under the name of another day. */
  beside?(day: string): Promise<{ readonly pack: Entries | null; readonly tombstone: Entry | null }>
}

/** What is larger is no file of a pack: evidence of a day is some hundred kilobytes. */
export const largestFile = 64 * 1024 * 1024
export const mostFiles = 100
/** Of one pack: its files are in memory together. */
const largestPack = 256 * 1024 * 1024

/** A folder's entries without following links and without opening what isn't a file. */
export async function readEntries(folder: string): Promise<Entries> {
  const found = await list(folder)
  const entries = new Map<string, Entry>()
  let room = largestPack
  for (const item of found.slice(0, mostFiles + 1)) {
    const entry = readEntry(join(folder, item.name), item, room)
    if (entry.kind === 'file') room -= entry.bytes.length
    entries.set(item.name, entry)
  }
  return entries
}

function readEntry(path: string, item: Dirent, room = largestFile): Entry {
  if (item.isSymbolicLink()) return { kind: 'link' }
  if (item.isDirectory()) return { kind: 'folder' }
  if (!item.isFile()) return { kind: 'special' }
  return readFileEntry(path, Math.min(room, largestFile))
}

/** Without waiting for each: a month has some six hundred small files, and the detour over threads doubles the time. */
function readFileEntry(path: string, most: number): Entry {
  let file: number | null = null
  try {
    // Whoever swaps the file for a link or a pipe after the listing gains nothing.
    file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    if (fstatSync(file).size > most) return { kind: 'too large' }
    return { kind: 'file', bytes: readFileSync(file) }
  } catch (error) {
    return { kind: 'unreadable', why: systemCode(error) }
  } finally {
    if (file !== null) closeSync(file)
  }
}

/**
 * A folder that is a pack, or one that has days in it (also `artifacts`, which has `green-posture` in it). `asPack`:
 * whatever it is called, it shall be one pack.
 */
export async function folderSource(path: string): Promise<Source> {
  const found = await list(path)
  const names = new Set(found.map(({ name }) => name))
  if (dayPattern.test(basename(resolve(path))) || names.has('manifest.json') || names.has('SHA256SUMS')) {
    return packSource(path)
  }
  if (names.has('green-posture') && !found.some(({ name }) => dayPattern.test(name))) {
    return daysSource(join(path, 'green-posture'))
  }
  return daysSource(path)
}

export async function packSource(path: string): Promise<Source> {
  // An absent folder must be said here, not as a pack without files.
  await list(path)
  const folder = basename(resolve(path))
  return {
    name: path,
    kind: 'pack',
    packs: [{ folder, read: () => readDay(resolve(path)) }],
    tombstones: [],
    others: [],
    async beside(day) {
      const parent = await daysSource(join(resolve(path), '..')).catch(() => null)
      const pack = await parent?.packs.find((other) => other.folder === day)?.read()
      const tombstone = await parent?.tombstones.find((other) => other.file === `${day}.json`)?.read()
      return { pack: pack ?? null, tombstone: tombstone ?? null }
    },
  }
}

export async function daysSource(path: string): Promise<Source> {
  const found = await list(path)
  const folders = found.filter(({ name }) => dayPattern.test(name)).map(({ name }) => name)
  const graves = found.some(({ name }) => name === 'tombstones') ? await listGraves(join(path, 'tombstones')) : []
  const range = found.find(({ name }) => name === rangeFile)
  return {
    name: path,
    kind: 'days',
    packs: folders.map((folder) => ({ folder, read: () => readDay(join(path, folder)) })),
    tombstones: graves.map((item) => ({
      file: item.name,
      read: () => Promise.resolve(readEntry(join(path, 'tombstones', item.name), item)),
    })),
    others: found
      .map(({ name }) => name)
      .filter((name) => !dayPattern.test(name) && name !== 'tombstones' && name !== rangeFile),
    stated: range ? statedRange(readEntry(join(path, rangeFile), range)) : null,
  }
}

/** Null when it says none that can be read: then the days must begin with the first there ever was. */
export function statedRange(entry: Entry): Range | null {
  return entry.kind === 'file' ? readRange(Buffer.from(entry.bytes).toString('latin1').trim()) : null
}

/** A day that is a link or a file is no pack; saying what it is comes from one entry that says so. */
async function readDay(path: string): Promise<Entries> {
  const status = await lstat(path)
  if (status.isDirectory()) return readEntries(path)
  return new Map([['.', { kind: status.isSymbolicLink() ? 'link' : 'special' }]])
}

async function listGraves(path: string): Promise<readonly Dirent[]> {
  const status = await lstat(path)
  return status.isDirectory() ? list(path) : []
}

async function list(path: string): Promise<readonly Dirent[]> {
  try {
    const found = await readdir(path, { withFileTypes: true })
    return found.sort((a, b) => (a.name < b.name ? -1 : 1))
  } catch (error) {
    const code = systemCode(error)
    throw new TmsError(
      {
        code: code === 'ENOENT' || code === 'ENOTDIR' ? 'NOT_FOUND' : 'FILE_UNREADABLE',
        what: code === 'ENOENT' ? `there is no folder ${path}` : `the folder ${path} can't be read`,
        why: `the system says ${code}`,
        next: ['tms evidence list', `ls -ld ${path}`],
      },
      { cause: error },
    )
  }
}

export function systemCode(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error)
}
