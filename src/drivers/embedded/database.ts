import { randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { dataDirectoryOf } from './data-directory.ts'
import { syncPath, syncTree } from './durable.ts'
import { findSnapshot, unpackSnapshot } from './snapshot.ts'

export type DatabaseSource = {
  /** Where the snapshot is looked for; by default beside the bundle. */
  readonly snapshotFolder: string | undefined
  /** The slow way, where no snapshot was built. */
  readonly initialise: (dataDirectory: string) => Promise<void>
}

/**
 * Makes the database of a directory whose lock this process holds. It gets its name only when it is whole and on the
 * disk; what a killed attempt left is removed first.
 */
export async function makeDatabase(directory: string, { snapshotFolder, initialise }: DatabaseSource): Promise<void> {
  for (const name of readdirSync(directory)) {
    if (/^db-[0-9a-f]{16}\.tmp$/.test(name)) rmSync(join(directory, name), { recursive: true, force: true })
  }
  const temporary = join(directory, `db-${randomBytes(8).toString('hex')}.tmp`)
  try {
    mkdirSync(temporary, { mode: 0o700 })
    const snapshot = findSnapshot(snapshotFolder)
    if (snapshot) unpackSnapshot(snapshot, temporary)
    else await initialise(temporary)
    await syncTree(temporary)
    renameSync(temporary, dataDirectoryOf(directory))
    syncPath(directory)
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true })
    throw error
  }
}
