import { randomBytes } from 'node:crypto'
import { lstat, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { fileProblem } from '../files.ts'

/**
 * Folders of packs, each whole or not there: written beside their place, synced, then renamed into it. A folder can't be
 * renamed over another, so the old one steps aside first; whoever is killed between the two leaves names that say what
 * was meant, and `settleFolders` ends it.
 *
 *   .2026-10-31.<who>.tmp   being written: worth nothing
 *   .2026-10-31.<who>.new   whole: waits for its place
 *   .2026-10-31.<who>.old   stepped aside
 */

export type PackBytes = {
  readonly day: string
  readonly revision: number
  readonly files: ReadonlyMap<string, Uint8Array>
  /** Whatever revision the folder in its place says it is. */
  readonly force?: boolean
}

/** `kept`: a newer revision lies there, and stays. */
export type Written = 'written' | 'same' | 'kept'

/** Which process writes, so that others know whether it is still at it. */
export type Self = {
  /** Eight hex digits that mean this machine. */
  readonly host: string
  readonly pid: number
  alive(pid: number): boolean
}

const leftover = /^\.(\d{4}-\d\d-\d\d)\.([0-9a-f]{8})-(\d+)-[0-9a-f]+\.(tmp|new|old)$/
/** Writing takes seconds: whoever seems to be at it for so long has another process's number. */
const longestWriteMs = 10 * 60_000

export async function writePackFolder(root: string, pack: PackBytes, self: Self): Promise<Written> {
  const place = join(root, pack.day)
  if (await sameFiles(place, pack.files)) return 'same'
  const mine = join(root, `.${pack.day}.${self.host}-${self.pid}-${randomBytes(6).toString('hex')}`)
  try {
    await mkdir(root, { recursive: true })
    await mkdir(`${mine}.tmp`)
    for (const [name, bytes] of pack.files) await writeSynced(join(`${mine}.tmp`, name), bytes)
    await syncFolder(`${mine}.tmp`)
    await rename(`${mine}.tmp`, `${mine}.new`)
    return await swap(root, place, mine, pack)
  } catch (error) {
    // Nothing is lost with them: the database has these bytes.
    await rm(`${mine}.tmp`, { recursive: true, force: true }).catch(() => undefined)
    if (await exists(place)) await rm(`${mine}.new`, { recursive: true, force: true }).catch(() => undefined)
    throw fileProblem(place, error)
  }
}

/**
 * Another builder may be at the same place. Each takes what is there aside and puts the newer one of the two back: its
 * own, or the one that it found, which nobody else has any more.
 */
async function swap(
  root: string,
  place: string,
  mine: string,
  pack: Pick<PackBytes, 'revision' | 'force'>,
): Promise<Written> {
  let { revision } = pack
  let kept = false
  for (let tries = 0; tries < 1000; tries += 1) {
    const stepped = await renamed(place, `${mine}.old`)
    const found = stepped && pack.force !== true ? await revisionIn(`${mine}.old`) : 0
    if (found > revision) {
      await rm(`${mine}.new`, { recursive: true, force: true })
      await rename(`${mine}.old`, `${mine}.new`)
      revision = found
      kept = true
    }
    const done = await renamed(`${mine}.new`, place)
    await syncFolder(root)
    await rm(`${mine}.old`, { recursive: true, force: true })
    if (done) return kept ? 'kept' : 'written'
  }
  throw new Error(`something is in the way of ${place} each time`)
}

/** Ends what a killed process began. Every command that reads or writes packs calls it first. */
export async function settleFolders(root: string, self: Self): Promise<void> {
  let names: string[]
  try {
    names = await readdir(root)
  } catch {
    // No folder, or none that can be read: whoever goes on finds out and says so.
    return
  }
  const found = names.flatMap((name) => {
    const [, day, owner, pid, kind] = leftover.exec(name) ?? []
    return day === undefined || kind === undefined
      ? []
      : [{ path: join(root, name), place: join(root, day), kind, owner, pid: Number(pid) }]
  })
  // Whole ones first: only when there is none the old one comes back.
  const order = ['new', 'old', 'tmp']
  found.sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind))
  for (const { path, place, kind, owner, pid } of found) {
    if (await atWork(path, owner === self.host ? self.alive(pid) : true)) continue
    if (kind === 'tmp' || (await exists(place)) || !(await renamed(path, place))) {
      await rm(path, { recursive: true, force: true }).catch(() => undefined)
    }
  }
}

/** Of another machine nobody can be asked: only time tells. */
export async function atWork(path: string, alive: boolean): Promise<boolean> {
  const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: 0 }))
  return alive && Date.now() - mtimeMs < longestWriteMs
}

/** False when there is nothing to rename, or something is in the way. */
async function renamed(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to)
    return true
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    if (['ENOENT', 'ENOTEMPTY', 'EEXIST', 'ENOTDIR', 'EISDIR'].includes(code)) return false
    throw error
  }
}

async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  )
}

/** What lies there says so itself; what can't be read is older than anything. */
async function revisionIn(folder: string): Promise<number> {
  try {
    const manifest: unknown = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'))
    const revision = typeof manifest === 'object' && manifest !== null && 'revision' in manifest && manifest.revision
    return typeof revision === 'number' ? revision : 0
  } catch {
    return 0
  }
}

async function sameFiles(folder: string, files: ReadonlyMap<string, Uint8Array>): Promise<boolean> {
  try {
    if (!(await lstat(folder)).isDirectory()) return false
    const entries = await readdir(folder, { withFileTypes: true })
    if (entries.length !== files.size) return false
    for (const entry of entries) {
      const bytes = files.get(entry.name)
      if (!bytes || !entry.isFile()) return false
      if (Buffer.compare(await readFile(join(folder, entry.name)), bytes) !== 0) return false
    }
    return true
  } catch {
    return false
  }
}

async function writeSynced(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, 'wx', 0o644)
  try {
    await file.writeFile(bytes)
    await file.sync()
  } finally {
    await file.close()
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
