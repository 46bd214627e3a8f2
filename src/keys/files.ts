import { randomBytes } from 'node:crypto'
import { link, mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileProblem, writeFileAtomically } from '../files.ts'
import { readKeyFile, signingKeyPath } from './private.ts'
import type { Signer } from './signer.ts'

/**
 * The private halves on disk. `signing.pem` is the one in use. `next-<8 digits>.pem` is one that takes over as soon as
 * the database knows it, and `signing-<8 digits>.pem` one that was kept. A key that nobody can find any more is worse
 * than a file too many: nothing is removed before its successor is safe, and found again after a kill at any moment.
 */

export function nextKeyPath(folder: string, fingerprint: string): string {
  return join(folder, `next-${fingerprint.slice(0, 8)}.pem`)
}

export function keptKeyPath(folder: string, fingerprint: string): string {
  return join(folder, `signing-${fingerprint.slice(0, 8)}.pem`)
}

/** Where the private half of this key is; null when it isn't here. */
export async function findKeyFile(
  folder: string,
  fingerprint: string,
): Promise<{ path: string; signer: Signer } | null> {
  for (const path of [signingKeyPath(folder), nextKeyPath(folder, fingerprint), keptKeyPath(folder, fingerprint)]) {
    const signer = await readKeyFile(path)
    if (signer?.fingerprint === fingerprint) return { path, signer }
  }
  return null
}

/** Makes signing.pem, unless there is one already: of two at once, one gets true. */
export async function createKeyFile(folder: string, pem: string): Promise<boolean> {
  const path = signingKeyPath(folder)
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`
  await makeFolder(folder)
  await writeFileAtomically(temporary, pem, { mode: 0o600 })
  try {
    await link(temporary, path)
    await syncFolder(folder)
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false
    throw fileProblem(path, error)
  } finally {
    await rm(temporary, { force: true })
  }
}

export async function writeKeyFile(path: string, pem: string): Promise<void> {
  await makeFolder(dirname(path))
  await writeFileAtomically(path, pem, { mode: 0o600 })
}

/** A second name for the same file: there from one moment to the next, without the key being written again. */
export async function keepKeyFile(from: string, to: string): Promise<void> {
  try {
    await link(from, to)
    await syncFolder(dirname(to))
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return
    throw fileProblem(to, error)
  }
}

/** Makes the key that took over the one in use; the one before it is gone then, unless it was kept. */
export async function adoptKeyFile(folder: string, from: string): Promise<void> {
  const path = signingKeyPath(folder)
  if (from === path) return
  try {
    await rename(from, path)
    await syncFolder(folder)
  } catch (error) {
    throw fileProblem(path, error)
  }
}

async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw fileProblem(folder, error)
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
