// Makes the database that a first start unpacks: `node scripts/snapshot.js <folder>` writes it there.
import { rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'

const root = resolve(fileURLToPath(import.meta.url), '../..')
const folder = resolve(process.argv[2] ?? join(root, 'dist'))
// Bundled where node finds the packages.
const program = join(folder, `snapshot-${process.pid}.mjs`)
try {
  await build({
    absWorkingDir: root,
    entryPoints: ['scripts/snapshot-program.ts'],
    outfile: program,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    packages: 'external',
    logLevel: 'warning',
  })
  const { writeSnapshot } = await import(pathToFileURL(program).href)
  await writeSnapshot(root, folder)
} catch (error) {
  // The message alone: node would print the line of the minified module that threw, all 300 KB of it.
  process.stderr.write(`The snapshot could not be made: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
} finally {
  rmSync(program, { force: true })
}
