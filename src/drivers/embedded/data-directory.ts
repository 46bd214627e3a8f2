import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { TmsError } from '../../errors.ts'

export function dataDirectoryOf(directory: string): string {
  return join(directory, 'db')
}

export function holdsDatabase(directory: string): boolean {
  return existsSync(join(dataDirectoryOf(directory), 'PG_VERSION'))
}

export function noDatabase(directory: string): TmsError {
  return new TmsError({
    code: 'CONFIG_MISSING',
    what: `There is no database in ${directory}.`,
    why: 'Only init and quickstart create one, so that a command in the wrong folder says so instead of starting afresh.',
    next: ['tms init', 'tms config show'],
  })
}
