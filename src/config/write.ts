import { join } from 'node:path'
import { writeFileAtomically } from '../files.ts'
import { configName } from './file.ts'
import type { Settings } from './settings.ts'

/** Writes the configuration file that says which database was meant, unless there is one. Holds no secret. */
export async function ensureConfig(
  settings: Settings,
  folder: string,
  keys: string | undefined,
): Promise<{ path: string; written: boolean }> {
  if (settings.file !== null) return { path: settings.file, written: false }
  const path = join(folder, configName)
  const { driver } = settings.connection
  const lines = [
    '# Settings of tms; docs/commands.md lists them all, `tms config show` what applies. Keep secrets in the environment.',
    `driver: ${driver}`,
    ...(driver === 'embedded' ? ['directory: .tms'] : []),
    ...(keys === undefined ? [] : [`keys: ${JSON.stringify(keys)}`]),
  ]
  await writeFileAtomically(path, `${lines.join('\n')}\n`)
  return { path, written: true }
}
