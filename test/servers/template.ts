import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

/**
 * Folders that are made once in a run and copied by every file of tests: making a cluster takes 0.9 s of a processor, the schema
 * on the embedded database 3.5 s, a copy 0.05 s.
 */
const variable = 'TMS_TEST_TEMPLATES'
const secret = 'TMS_TEST_PASSWORD'

/** Of the logins in every cluster of one run. */
export const password = process.env[secret] ?? randomBytes(12).toString('hex')

/** For vitest: its workers inherit where the folders are. */
export async function setup(): Promise<() => Promise<void>> {
  // Open to the user that Postgres runs as, and so not below a closed TMPDIR.
  const folder = await mkdtemp(join(process.getuid?.() === 0 ? '/tmp' : tmpdir(), 'tms-templates-'))
  await chmod(folder, 0o711)
  process.env[variable] = folder
  process.env[secret] = password
  return () => rm(folder, { recursive: true, force: true })
}

export type Template = { readonly name: string; readonly make: (folder: string) => Promise<void> }

/** Puts a copy of what `make` makes at `to`, which isn't there yet. Outside of vitest it is made there. */
export async function copied({ name, make }: Template, to: string): Promise<void> {
  const templates = process.env[variable]
  if (templates === undefined) return make(to)
  const template = join(templates, name)
  if (!existsSync(template)) {
    const own = await mkdtemp(`${template}.`)
    await make(join(own, name))
    // Two workers may make it at once: one of them is first, and both are the same.
    await rename(join(own, name), template).catch((error: unknown) => {
      if (!existsSync(template)) throw error
    })
    await rm(own, { recursive: true, force: true })
  }
  await promisify(execFile)('cp', ['-a', template, to])
}
