import { accessSync, constants, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { TmsError } from '../../errors.ts'
import { fileProblem } from './problem.ts'

export function dataDirectoryOf(directory: string): string {
  return join(directory, 'db')
}

/**
 * Whether there is a database. One that cannot be read, or lacks what every database has, is not an absent one. One that
 * cannot be written is no damaged one, which is all that the engine would say.
 */
export function holdsDatabase(directory: string): boolean {
  const folder = dataDirectoryOf(directory)
  try {
    if (!statSync(folder, { throwIfNoEntry: false })) return false
    if (statSync(join(folder, 'PG_VERSION'), { throwIfNoEntry: false })?.isFile()) {
      accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK)
      return true
    }
  } catch (error) {
    throw fileProblem(error, folder)
  }
  throw new TmsError({
    code: 'FILE_UNREADABLE',
    what: `${folder} is no database, or a damaged one.`,
    why: 'It has no file PG_VERSION. Nothing was changed.',
    next: [`ls -la ${folder}`, `mv ${folder} ${folder}.damaged`, 'tms init'],
  })
}

/**
 * Postgres makes its lock file and then writes into it. Killed between the two it leaves an empty one, and refuses to start for
 * ever after. Whoever asks for this owns the folder; one with something in it is Postgres' own affair.
 */
export function clearEmptyLock(directory: string): void {
  const file = join(dataDirectoryOf(directory), 'postmaster.pid')
  try {
    if (statSync(file, { throwIfNoEntry: false })?.size === 0) rmSync(file, { force: true })
  } catch (error) {
    throw fileProblem(error, file)
  }
}

export function noDatabase(directory: string): TmsError {
  return new TmsError({
    code: 'CONFIG_MISSING',
    what: `There is no database in ${directory}.`,
    why: 'Only init and quickstart create one, so that a command in the wrong folder says so instead of starting afresh.',
    next: ['tms init', 'tms config show'],
  })
}
