import { randomBytes } from 'node:crypto'
import {
  linkSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  rmdirSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import * as z from 'zod'
import { writeSynced } from './durable.ts'
import type { ProcessIdentity, Sighting } from './process.ts'
import { bootId, lookAt, thisProcess } from './process.ts'
import { canConnect, fitsSocketPath } from './socket-path.ts'

/**
 * Who owns a directory. Two owners open one PGlite directory without a word and lose each other's rows, so this must
 * hold against kill -9, a stopped process, a reused pid and processes that race.
 *
 * Each acquisition links a new file `owner.<n>.json` with n one above the highest; the highest generation decides. The
 * highest is never deleted, only replaced by its own released copy, so nobody can take away a lock between looking at
 * it and acting on it: a stale look ends in EEXIST or in seeing a higher generation.
 */

const recordSchema = z.object({
  pid: z.int(),
  started: z.string(),
  host: z.string(),
  boot: z.string(),
  /** Relative to the directory, or absolute when it had to lie elsewhere. */
  socket: z.string(),
  since: z.string(),
  released: z.boolean(),
})

export type OwnerRecord = z.infer<typeof recordSchema>

export type FreeLook = {
  readonly state: 'free'
  readonly generation: number
  readonly previous: OwnerRecord | undefined
}

export type Look =
  | FreeLook
  | { readonly state: 'owned'; readonly record: OwnerRecord; readonly socket: string }
  /** Nobody here can say whether that owner lives; `file` is to be deleted by a person who checked. */
  | { readonly state: 'unknown'; readonly file: string; readonly why: string }

export type Lock = {
  readonly generation: number
  /** False once the folder was deleted, moved or replaced: what lies at its path now is somebody else's. */
  held(): boolean
  release(): void
}

export function socketOf(directory: string, record: OwnerRecord): string {
  return resolve(directory, record.socket)
}

export async function lookAtOwner(directory: string): Promise<Look> {
  for (;;) {
    const generation = highestGeneration(directory)
    if (generation === 0) return { state: 'free', generation, previous: undefined }
    const file = lockFile(directory, generation)
    const text = readIfThere(file)
    // Only generations below the highest are ever deleted: there is a newer one by now.
    if (text === undefined) continue
    const record = parseRecord(text)
    if (!record) return { state: 'unknown', file, why: `${file} can't be read as a lock.` }
    if (record.released) return { state: 'free', generation, previous: record }
    const alive = await isAlive(directory, record)
    if (alive === 'unknown') {
      return {
        state: 'unknown',
        file,
        why: `Process ${record.pid} on host ${record.host} took the lock at ${record.since}.`,
      }
    }
    return alive
      ? { state: 'owned', record, socket: socketOf(directory, record) }
      : { state: 'free', generation, previous: record }
  }
}

async function isAlive(directory: string, record: OwnerRecord): Promise<boolean | 'unknown'> {
  const here = { host: hostname(), boot: bootId() }
  const sameBoot = record.boot === here.boot && record.boot !== ''
  const inside = !record.socket.includes('/')
  // In another container of the same kernel the pid means nothing, but a socket in the shared directory still answers.
  if (record.host !== here.host && !(sameBoot && inside)) return 'unknown'
  if (record.boot !== here.boot) return false
  if (seen(record)) return true
  const socket = socketOf(directory, record)
  // A path that is too long would be cut by the system, and the answer would be about another file.
  return fitsSocketPath(socket) ? canConnect(socket) : 'unknown'
}

/** The process of a record, when it still runs or is stopped; a zombie's last threads still hold its socket open. */
export function seen(record: Pick<ProcessIdentity, 'pid' | 'started'>): Sighting | undefined {
  const sighting = lookAt(record.pid)
  return sighting && sighting.started === record.started && sighting.state !== 'ended' ? sighting : undefined
}

/** A place for a socket that no other attempt uses, so that removing a stale one can't remove a living one. */
export function newSocketPath(directory: string): string {
  const name = `owner-${randomBytes(8).toString('hex')}.sock`
  const inside = join(directory, name)
  return fitsSocketPath(inside) ? inside : join(mkdtempSync(join(tmpdir(), 'tms-')), 's')
}

/** Only a socket, and only an empty folder: the path comes from a file that somebody may have copied here. */
export function removeSocket(directory: string, socket: string): void {
  try {
    if (lstatSync(socket, { throwIfNoEntry: false })?.isSocket()) unlinkSync(socket)
    if (dirname(socket) !== directory) rmdirSync(dirname(socket))
  } catch (error) {
    if (!isCode(error, 'ENOENT', 'ENOTEMPTY', 'ENOTDIR', 'EACCES', 'EPERM')) throw error
  }
}

/** Takes the generation after the one of the look; nothing when somebody else was faster. The socket already listens. */
export function tryAcquire(directory: string, look: FreeLook, socket: string): Lock | undefined {
  const generation = look.generation + 1
  const file = lockFile(directory, generation)
  const temporary = join(directory, `owner-${randomBytes(8).toString('hex')}.tmp`)
  const record: OwnerRecord = {
    ...thisProcess(),
    socket: dirname(socket) === directory ? basename(socket) : socket,
    since: new Date().toISOString(),
    released: false,
  }
  try {
    writeSynced(temporary, JSON.stringify(record))
    linkSync(temporary, file)
  } catch (error) {
    // ENOENT: the winner already swept this attempt's temporary file away.
    if (isCode(error, 'EEXIST', 'ENOENT')) return undefined
    throw error
  } finally {
    rmSync(temporary, { force: true })
  }
  // This generation may have been used and deleted long ago, by owners that came and went since the look.
  if (highestGeneration(directory) > generation) {
    // The owner of now may have swept it already.
    rmSync(file, { force: true })
    return undefined
  }
  sweep(directory, generation, socket, look.previous)
  const { ino, dev } = statSync(file)
  return {
    generation,
    held: () => {
      const now = statSync(file, { throwIfNoEntry: false })
      return now?.ino === ino && now.dev === dev
    },
    release: () => release(directory, file, record),
  }
}

function release(directory: string, file: string, record: OwnerRecord): void {
  // A person may have deleted the file by hand and somebody else taken the same number.
  if (parseRecord(readIfThere(file) ?? '')?.socket !== record.socket) return
  const released = JSON.stringify({ ...record, released: true } satisfies OwnerRecord)
  const temporary = join(directory, `owner-${randomBytes(8).toString('hex')}.tmp`)
  try {
    writeSynced(temporary, released)
    renameSync(temporary, file)
  } catch (error) {
    rmSync(temporary, { force: true })
    if (!isCode(error, 'ENOSPC', 'EDQUOT')) throw error
    // A full disk has no place for another file, but the lock's own block is there. A blank more: `false` is longer.
    writeFileSync(file, `${released} `, { flag: 'r+' })
  }
}

/** What earlier owners and lost attempts left. Only the owner does this, right after acquiring. */
function sweep(directory: string, generation: number, socket: string, previous: OwnerRecord | undefined): void {
  if (previous) removeSocket(directory, socketOf(directory, previous))
  for (const name of readdirSync(directory)) {
    const old = generationOf(name)
    const stale = old === undefined ? /^owner-[0-9a-f]{16}\.(sock|tmp)$/.test(name) : old < generation - 3
    if (stale && join(directory, name) !== socket) rmSync(join(directory, name), { force: true })
  }
}

function highestGeneration(directory: string): number {
  return Math.max(0, ...readdirSync(directory).map((name) => generationOf(name) ?? 0))
}

function generationOf(name: string): number | undefined {
  const digits = /^owner\.(\d{1,15})\.json$/.exec(name)?.[1]
  return digits === undefined ? undefined : Number(digits)
}

function lockFile(directory: string, generation: number): string {
  return join(directory, `owner.${generation}.json`)
}

function parseRecord(text: string): OwnerRecord | undefined {
  try {
    return recordSchema.parse(JSON.parse(text))
  } catch {
    return undefined
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined
    throw error
  }
}

export function isCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.some((code) => error.code === code)
}
