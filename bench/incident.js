// The big red button under load, as whole commands: `node bench/incident.js [presses] [writers]` (50 and 150).
// Each press is a process of the built command; the fence's own time is what the database measured.
import { rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
// Two folders below the root, as the parts it bundles: they find SQL and policies from where they lie.
const file = join(root, 'test/incident', `.bench-${process.pid}.mjs`)
const { build } = createRequire(join(root, 'package.json'))('esbuild')
const [presses = '50', writers = '150'] = process.argv.slice(2)
try {
  await build({
    absWorkingDir: root,
    entryPoints: ['bench/incident-parts.ts'],
    outfile: file,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    packages: 'external',
    logLevel: 'warning',
  })
  const { measure } = await import(pathToFileURL(file).href)
  await measure(root, Number(presses), Number(writers), (line) => process.stdout.write(`${line}\n`))
} finally {
  rmSync(file, { force: true })
}
