import { open } from 'node:fs/promises'
import { gunzipSync } from 'node:zlib'
import { TmsError } from '../errors.ts'
import { dayPattern } from './verify-forms.ts'
import {
  largestFile,
  rangeFile,
  statedRange,
  systemCode,
  type Entries,
  type Entry,
  type Source,
} from './verify-source.ts'
import { ArchiveBroken, readTar, type Packed } from './verify-tar.ts'
import { ArchiveUnread, readZip } from './verify-zip.ts'

/** A year of packs is some hundred megabytes; what is beyond that is unpacked by hand. */
const largestArchive = 512 * 1024 * 1024
const largestUnpacked = 1024 * 1024 * 1024

/** The days of an archive, read in memory: nothing of it is ever written, so no name in it leads anywhere. */
export async function archiveSource(path: string): Promise<Source> {
  const bytes = await readArchive(path)
  const problems: { readonly file: string; readonly what: string }[] = []
  let packed: readonly Packed[] = []
  try {
    packed = unpack(bytes)
  } catch (error) {
    if (error instanceof ArchiveUnread) throw cannotTell(path, `${error.message}, which is not read here`)
    if (!(error instanceof ArchiveBroken)) throw error
    problems.push({ file: path, what: `is damaged: ${error.message}` })
  }
  const files = new Map<string, Packed>()
  for (const item of packed) {
    const name = plainPath(item.path)
    if (name === null) problems.push({ file: item.path, what: 'leads out of the archive, or has no plain name' })
    else if (item.kind === 'link' || item.kind === 'special') {
      problems.push({ file: item.path, what: `is a ${item.kind === 'link' ? 'link' : 'device or the like'}` })
    } else if (name !== '' && files.has(name) && (item.kind === 'file' || files.get(name)?.kind === 'file')) {
      problems.push({ file: item.path, what: 'is in the archive twice' })
    } else if (name !== '') files.set(name, item)
  }
  return { name: path, kind: 'archive', ...daysOf(files, problems), problems }
}

async function readArchive(path: string): Promise<Buffer> {
  let file
  try {
    file = await open(path)
    const { size } = await file.stat()
    if (size > largestArchive) throw cannotTell(path, `it has ${size} bytes; here up to ${largestArchive} are read`)
    return await file.readFile()
  } catch (error) {
    if (error instanceof TmsError) throw error
    throw new TmsError(
      {
        code: 'FILE_UNREADABLE',
        what: `${path} can't be read`,
        why: `the system says ${systemCode(error)}`,
        next: [`ls -l ${path}`],
      },
      { cause: error },
    )
  } finally {
    await file?.close()
  }
}

function unpack(bytes: Buffer): readonly Packed[] {
  if (bytes.length >= 4 && bytes.readUInt16BE(0) === 0x504b) return readZip(bytes, largestUnpacked)
  if (bytes.length >= 2 && bytes.readUInt16BE(0) === 0x1f8b) {
    let tar: Buffer
    try {
      tar = gunzipSync(bytes, { maxOutputLength: largestUnpacked })
    } catch (error) {
      if (error instanceof RangeError) throw new ArchiveUnread(`unpacked it is larger than ${largestUnpacked} bytes`)
      throw new ArchiveBroken('it cannot be unpacked', { cause: error })
    }
    return readTar(tar)
  }
  if (bytes.length >= 512 && bytes.subarray(257, 262).toString('latin1') === 'ustar') return readTar(bytes)
  throw new ArchiveUnread('it is neither a tar, a .tar.gz nor a zip')
}

/** Without `./` in front and `/` behind; null for a path that isn't simply down from here. */
function plainPath(path: string): string | null {
  const name = path.replace(/^(?:\.\/)+/, '').replace(/\/+$/, '')
  if (name === '' || name === '.') return ''
  const steps = name.split('/')
  const odd = /[\u0000-\u001f\u007f\\]|^[A-Za-z]:/.test(name)
  return odd || steps.some((step) => step === '' || step === '.' || step === '..') ? null : name
}

/** Days lie in one folder of the archive, whatever it is called. */
function daysOf(
  files: ReadonlyMap<string, Packed>,
  problems: { readonly file: string; readonly what: string }[],
): Pick<Source, 'packs' | 'tombstones' | 'others' | 'stated'> {
  const packs = new Map<string, Map<string, Entry>>()
  const graves = new Map<string, Entry>()
  const others: string[] = []
  let home: string | null = null
  for (const [path, item] of files) {
    const steps = path.split('/')
    const at = steps.findIndex((step) => dayPattern.test(step) || step === 'tombstones')
    const [step] = steps.slice(at)
    const [inside, ...deeper] = steps.slice(at + 1)
    if (at < 0 || step === undefined) {
      if (item.kind === 'file') others.push(path)
      continue
    }
    const folder = steps.slice(0, at).join('/')
    home ??= folder
    if (folder !== home) {
      problems.push({ file: path, what: 'is a day in another folder than the other days' })
      continue
    }
    if (step === 'tombstones') {
      if (inside !== undefined) graves.set([inside, ...deeper].join('/'), entryOf(item))
      continue
    }
    const entries = packs.get(step) ?? new Map<string, Entry>()
    packs.set(step, entries)
    if (inside !== undefined) entries.set(inside, deeper.length > 0 ? { kind: 'folder' } : entryOf(item))
    else if (item.kind === 'file') entries.set('.', { kind: 'special' })
  }
  const rangePath = home === null || home === '' ? rangeFile : `${home}/${rangeFile}`
  const range = files.get(rangePath)
  return {
    stated: range ? statedRange(entryOf(range)) : null,
    packs: [...packs]
      .map(([folder, entries]) => ({ folder, read: () => Promise.resolve<Entries>(entries) }))
      .sort(byFolder),
    tombstones: [...graves].map(([file, entry]) => ({ file, read: () => Promise.resolve(entry) })),
    others: others.filter((path) => path !== rangePath),
  }
}

function entryOf(item: Packed): Entry {
  if (item.kind === 'file') {
    return item.bytes.length > largestFile ? { kind: 'too large' } : { kind: 'file', bytes: item.bytes }
  }
  return { kind: item.kind }
}

function byFolder(a: { readonly folder: string }, b: { readonly folder: string }): number {
  return a.folder < b.folder ? -1 : 1
}

function cannotTell(path: string, why: string): TmsError {
  return new TmsError({
    code: 'FILE_UNREADABLE',
    what: `${path} can't be judged`,
    why,
    next: ['mkdir unpacked', `tar -C unpacked -xf ${path}`, 'tms evidence verify unpacked --key key.pem'],
  })
}
