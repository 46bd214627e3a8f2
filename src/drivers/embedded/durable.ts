import { closeSync, fsyncSync, openSync, writeFileSync } from 'node:fs'
import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'

/** Writes a new file that only this user can read, and returns when its bytes are on the disk. */
export function writeSynced(path: string, content: string): void {
  const file = openSync(path, 'wx', 0o600)
  try {
    writeFileSync(file, content)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

/** Makes a rename, link or new file in this folder survive a loss of power; works for files too. */
export function syncPath(path: string): void {
  const opened = openSync(path, 'r')
  try {
    fsyncSync(opened)
  } finally {
    closeSync(opened)
  }
}

/** Everything below a folder, and the folder. In parallel, so that the file system commits many at once. */
export async function syncTree(folder: string): Promise<void> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  await Promise.all([folder, ...entries.map((entry) => join(entry.parentPath, entry.name))].map(syncOne))
}

async function syncOne(path: string): Promise<void> {
  const opened = await open(path, 'r')
  try {
    await opened.sync()
  } finally {
    await opened.close()
  }
}
