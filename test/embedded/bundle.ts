import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import type { EmbeddedConnection } from '../../src/drivers/connection.ts'
import { createDatabase } from '../../src/drivers/embedded/create.ts'
import { DurableFs } from '../../src/drivers/embedded/durable-fs.ts'
import { openEmbedded, type Internals } from '../../src/drivers/embedded/driver.ts'
import { copied } from '../servers/template.ts'
import { tinySchema } from './schema.ts'

/**
 * What runs outside of vitest: the worker thread, and processes that open a directory. Node 20 loads no TypeScript, and
 * dist may be older than the sources, so each test file bundles its own.
 */
export type Bundle = {
  /** This bundle's worker, and no snapshot. */
  readonly internals: Internals
  readonly childFile: string
  /** A new, empty place for a test; all of them go with `remove`. */
  folder(): string
  /** A directory that holds a database with the tiny schema; copied, because making one takes three seconds of a processor. */
  database(): Promise<string>
  remove(): void
}

const root = fileURLToPath(new URL('../..', import.meta.url))

export async function bundle(): Promise<Bundle> {
  const home = mkdtempSync(join(tmpdir(), 'tms-test-'))
  symlinkSync(join(root, 'node_modules'), join(home, 'node_modules'))
  await build({
    absWorkingDir: root,
    entryPoints: { 'embedded-worker': 'src/drivers/embedded/worker.ts', child: 'test/embedded/child.ts' },
    outdir: home,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    external: ['@electric-sql/*'],
    logLevel: 'error',
  })
  const internals = { workerFile: join(home, 'embedded-worker.js'), snapshotFolder: join(home, 'no snapshot here') }
  let folders = 0
  let template: Promise<string> | undefined

  function folder(): string {
    return mkdtempSync(join(home, `${(folders += 1)}-`))
  }

  async function make(directory: string): Promise<void> {
    // Not through the driver, which gives an opening 30 s: initdb on a busy machine has taken longer.
    mkdirSync(directory, { mode: 0o700 })
    await createDatabase(new DurableFs(join(directory, 'db')))
    const driver = await openEmbedded(connectionTo(directory), internals)
    try {
      await driver.administration?.transaction((run) => run(tinySchema))
    } finally {
      await driver.close()
    }
  }

  async function makeTemplate(): Promise<string> {
    const directory = join(folder(), '.tms')
    await copied({ name: 'embedded_tiny', make }, directory)
    return directory
  }

  return {
    internals,
    childFile: join(home, 'child.js'),
    folder,
    async database() {
      template ??= makeTemplate()
      const directory = join(folder(), '.tms')
      cpSync(join(await template, 'db'), join(directory, 'db'), { recursive: true })
      return directory
    },
    remove: () => rmSync(home, { recursive: true, force: true, maxRetries: 5 }),
  }
}

export function connectionTo(directory: string, more: Partial<EmbeddedConnection> = {}): EmbeddedConnection {
  return { driver: 'embedded', directory, create: false, callTimeoutMs: 20_000, ...more }
}
