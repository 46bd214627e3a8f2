import { createHash } from 'node:crypto'
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import * as z from 'zod'
import { TmsError } from '../../errors.ts'
import { findArtefact } from './artefact.ts'

/**
 * A cleanly closed database directory as a tar file, made by the build and unpacked at the first start: initdb and the
 * migrations take 2.6 to 4 s, this a tenth of it.
 */
export type Snapshot = { readonly archive: Buffer; readonly manifest: string }

export const snapshotArchive = 'embedded.tar.gz'
export const snapshotManifest = 'embedded.tar.gz.json'

const manifestSchema = z.object({ sha256: z.string(), bytes: z.int() })

export function createSnapshot(dataDirectory: string): Snapshot {
  const blocks: Buffer[] = []
  for (const path of walk(dataDirectory, '')) {
    const isFolder = path.endsWith('/')
    const content = isFolder ? Buffer.alloc(0) : readFileSync(join(dataDirectory, path))
    blocks.push(tarHeader(path, content.length), content, Buffer.alloc(-content.length & 511))
  }
  const archive = gzipSync(Buffer.concat([...blocks, Buffer.alloc(1024)]), { level: 9 })
  return { archive, manifest: `${JSON.stringify({ sha256: sha256(archive), bytes: archive.length })}\n` }
}

export type SnapshotFiles = { readonly archive: string; readonly manifest: string }

/**
 * Half a snapshot is broken, and unpacking says so. None is a checkout that wasn't built; and sources take none, for the
 * SQL beside them may be newer than what was built.
 */
export function findSnapshot(folder?: string): SnapshotFiles | undefined {
  if (folder === undefined && import.meta.url.endsWith('.ts')) return undefined
  const find = (name: string) => (folder === undefined ? findArtefact(name) : [join(folder, name)].find(existsSync))
  const archive = find(snapshotArchive)
  const manifest = find(snapshotManifest)
  if (archive === undefined && manifest === undefined) return undefined
  return { archive: archive ?? snapshotArchive, manifest: manifest ?? snapshotManifest }
}

/** Unpacks into an empty folder. The caller syncs it, renames it, and removes it after an error. */
export function unpackSnapshot(files: SnapshotFiles, target: string): void {
  const archive = read(files.archive)
  const manifest = parseManifest(read(files.manifest).toString('utf8'), files.manifest)
  if (archive.length !== manifest.bytes || sha256(archive) !== manifest.sha256) {
    throw broken(`${files.archive} isn't the file that its manifest describes.`)
  }
  for (const { path, content } of readTar(archive)) {
    if (path.startsWith('/') || path.split('/').includes('..')) throw broken(`It names a file outside: ${path}.`)
    if (path.endsWith('/')) mkdirSync(join(target, path), { mode: 0o700 })
    else writeFileSync(join(target, path), content, { mode: 0o600, flag: 'wx' })
  }
}

function read(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    throw broken(`${path} can't be read.`, error)
  }
}

function parseManifest(text: string, path: string): z.infer<typeof manifestSchema> {
  try {
    return manifestSchema.parse(JSON.parse(text))
  } catch (error) {
    throw broken(`${path} isn't a manifest.`, error)
  }
}

function broken(why: string, cause?: unknown): TmsError {
  return new TmsError(
    {
      code: 'SNAPSHOT_BROKEN',
      what: 'The database that comes with tms is damaged; nothing was created.',
      why,
      next: ['npm install', 'npm run build'],
    },
    { cause },
  )
}

/** Folders end with a slash and come before what is in them. */
function* walk(root: string, below: string): Generator<string> {
  for (const name of readdirSync(join(root, below)).sort()) {
    const path = `${below}${name}`
    if (!lstatSync(join(root, path)).isDirectory()) yield path
    else {
      yield `${path}/`
      yield* walk(root, `${path}/`)
    }
  }
}

/** The ustar header; equal content gives equal bytes, so no times and no owners. */
function tarHeader(path: string, size: number): Buffer {
  if (Buffer.byteLength(path) > 100) throw new Error(`too long for a tar header: ${path}`)
  const header = Buffer.alloc(512)
  const isFolder = path.endsWith('/')
  header.write(path, 0)
  header.write(isFolder ? '0000700\0' : '0000600\0', 100)
  header.write('0000000\0'.repeat(2), 108)
  header.write(`${size.toString(8).padStart(11, '0')}\0`, 124)
  header.write('00000000000\0', 136)
  // The checksum counts its own field as spaces.
  header.write('        ', 148)
  header.write(isFolder ? '5' : '0', 156)
  header.write('ustar\x0000', 257)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return header
}

function* readTar(archive: Buffer): Generator<{ path: string; content: Buffer }> {
  const tar = gunzipSync(archive)
  let at = 0
  // The end is a block of zeros.
  while (at < tar.length && tar[at] !== 0) {
    const path = text(tar, at, 100)
    const size = Number.parseInt(text(tar, at + 124, 12), 8)
    yield { path, content: tar.subarray(at + 512, at + 512 + size) }
    at += 512 + size + (-size & 511)
  }
}

function text(tar: Buffer, start: number, length: number): string {
  const field = tar.subarray(start, start + length)
  const end = field.indexOf(0)
  return field.toString('utf8', 0, end < 0 ? length : end)
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}
