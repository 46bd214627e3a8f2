import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { TmsError } from '../../errors.ts'
import { findArtefact } from './artefact.ts'
import { syncPath, syncTree } from './durable.ts'
import { snapshotArchive, snapshotManifest, unpackSnapshot } from './snapshot.ts'

export function dataDirectoryOf(directory: string): string {
  return join(directory, 'db')
}

export function noDatabase(directory: string): TmsError {
  return new TmsError({
    code: 'CONFIG_MISSING',
    what: `There is no database in ${directory}.`,
    why: 'Only init and quickstart create one, so that a command in the wrong folder says so instead of starting afresh.',
    next: ['tms init', 'tms config show'],
  })
}

export function holdsDatabase(directory: string): boolean {
  return existsSync(join(dataDirectoryOf(directory), 'PG_VERSION'))
}

/**
 * Makes the database of a directory whose lock this process holds. It gets its name only when it is whole and on the
 * disk; what a killed attempt left is removed first.
 */
export async function makeDatabase(
  directory: string,
  initialise: (dataDirectory: string) => Promise<void>,
): Promise<void> {
  for (const name of readdirSync(directory)) {
    if (/^db-[0-9a-f]{16}\.tmp$/.test(name)) rmSync(join(directory, name), { recursive: true, force: true })
  }
  const temporary = join(directory, `db-${randomBytes(8).toString('hex')}.tmp`)
  try {
    const archive = findArtefact(snapshotArchive)
    const manifest = findArtefact(snapshotManifest)
    // Half an installation is broken, none of it is a checkout that wasn't built.
    if (archive ?? manifest)
      unpackSnapshot({ archive: archive ?? snapshotArchive, manifest: manifest ?? snapshotManifest }, temporary)
    else await initialise(temporary)
    await syncTree(temporary)
    renameSync(temporary, dataDirectoryOf(directory))
    syncPath(directory)
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true })
    throw error
  }
}
