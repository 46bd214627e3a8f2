import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TmsError } from '../errors.ts'

export type SqlFile = {
  readonly kind: 'migration' | 'function'
  readonly name: string
  readonly text: string
  readonly sha256: string
}

/** The SQL that a release ships: run in this order. */
export type SqlFiles = {
  readonly prelude: string
  readonly migrations: readonly SqlFile[]
  readonly functions: readonly SqlFile[]
  readonly postlude: string
}

export async function readSqlFiles(directory: string): Promise<SqlFiles> {
  try {
    const [prelude, migrations, functions, postlude] = await Promise.all([
      readFile(join(directory, 'prelude.sql'), 'utf8'),
      readFolder(join(directory, 'migrations'), 'migration'),
      readFolder(join(directory, 'functions'), 'function'),
      readFile(join(directory, 'postlude.sql'), 'utf8'),
    ])
    return { prelude, migrations, functions, postlude }
  } catch (error) {
    throw new TmsError(
      {
        code: 'FILE_UNREADABLE',
        what: 'the SQL files of this installation cannot be read',
        why: error instanceof Error ? error.message : String(error),
        next: ['npm install -g @transbot/tms'],
      },
      { cause: error },
    )
  }
}

async function readFolder(folder: string, kind: SqlFile['kind']): Promise<SqlFile[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort()
  return Promise.all(
    names.map(async (name) => {
      const text = await readFile(join(folder, name), 'utf8')
      return { kind, name, text, sha256: createHash('sha256').update(text).digest('hex') }
    }),
  )
}

/** Name to sha256 of the body: what stands between the dollar quotes is what Postgres stores. */
export function functionBodies(text: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>()
  for (const [, name = '', body = ''] of text.matchAll(
    /create (?:or replace )?function tms\.(\w+)\((?:(?!\$\$)[\s\S])*?\$\$([\s\S]*?)\$\$/g,
  )) {
    found.set(name, createHash('sha256').update(body).digest('hex'))
  }
  return found
}

/** The same for all files of a release. */
export function shippedFunctions(files: SqlFiles): ReadonlyMap<string, string> {
  return new Map([...files.migrations, ...files.functions].flatMap(({ text }) => [...functionBodies(text)]))
}
