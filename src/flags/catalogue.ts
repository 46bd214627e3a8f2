import { createHash, randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'
import { catalogueEntry, type CatalogueEntry, type Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import { parseYaml } from '../yaml.ts'

export type Catalogue = { readonly path: string; readonly sha256: string; readonly entries: readonly CatalogueEntry[] }

const file = z.strictObject({
  flags: z.record(
    z.string().regex(/^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)+$/, 'a flag is named topic.name'),
    catalogueEntry.omit({ key: true }).extend({
      // YAML reads an unquoted date as text, which is what travels
      expires: z.iso.date('a date: 2027-03-31').optional(),
    }),
  ),
})

/** Reads the catalogue: the folder's own, else the one that comes with tms. */
export async function readCatalogue(folders: readonly string[]): Promise<Catalogue> {
  for (const folder of folders) {
    const path = join(folder, 'flags.yaml')
    const text = await readIfThere(path)
    if (text !== null) return parseCatalogue(path, text)
  }
  throw new TmsError({
    code: 'POLICY_INVALID',
    what: 'there is no flag catalogue',
    why: `no flags.yaml in ${folders.join(' or ')}`,
    next: ['npm install -g @transbot/tms'],
  })
}

export function parseCatalogue(path: string, text: string): Catalogue {
  const parsed = parseYaml(text, file)
  if ('problem' in parsed) {
    const { line, column, keys, message } = parsed.problem
    throw new TmsError({
      code: 'POLICY_INVALID',
      what: `${path}:${line}:${column}: ${[...keys.slice(1)].join('.') || 'the catalogue'}: ${message}`,
      why: 'the catalogue decides which flags exist, so none of it was loaded',
      next: [`vi +${line} ${path}`],
    })
  }
  const entries = Object.entries(parsed.value.flags).map(([key, entry]) => ({
    ...entry,
    key,
    expires: entry.expires ?? null,
  }))
  return { path, sha256: createHash('sha256').update(text).digest('hex'), entries }
}

/** Makes the database's catalogue this one. Stored values of flags that left it stay and are reported by `flags verify`. */
export async function loadCatalogue(
  driver: Driver,
  catalogue: Catalogue,
): Promise<Contract['flags_catalogue']['result']> {
  const { sha256, entries } = catalogue
  return granted(await driver.call('flags_catalogue', { request_id: randomUUID(), sha256, entries: [...entries] }))
}

async function readIfThere(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) return null
    throw new TmsError(
      {
        code: 'FILE_UNREADABLE',
        what: `${path} can't be read`,
        why: error instanceof Error ? error.message : String(error),
        next: [`ls -l ${path}`],
      },
      { cause: error },
    )
  }
}
