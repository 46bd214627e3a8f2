// The parts of a measurement, made from the project's sources.
import { build } from 'esbuild'
import { mkdtempSync, rmSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

export const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')

/** Hands the exports of `entry` (a path from the root) to `use`, and the bundle's own path, which a child can import. */
export async function withParts(entry, use) {
  // Two folders below the root, as what it bundles: sources find SQL and policies from where they lie.
  const folder = mkdtempSync(join(root, 'bench', '.parts-'))
  try {
    const file = join(folder, 'parts.mjs')
    await build({
      absWorkingDir: root,
      entryPoints: [entry],
      outfile: file,
      bundle: true,
      format: 'esm',
      platform: 'node',
      target: 'node20',
      packages: 'external',
      logLevel: 'warning',
    })
    return await use(await import(pathToFileURL(file).href), file)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
