// How long the pack of a full day takes, and whether history costs anything:
//
//   node bench/evidence.js                       10 million runs and 1 million ledger rows in the day, 30 days of history
//   node bench/evidence.js 100000 20000 3        fewer
import { rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const file = join(root, 'node_modules', `.evidence-${process.pid}.mjs`)
const { build } = createRequire(join(root, 'package.json'))('esbuild')
const [runs = '10000000', rows = '1000000', history = '30'] = process.argv.slice(2)
try {
  await build({
    absWorkingDir: root,
    entryPoints: ['bench/evidence-parts.ts'],
    outfile: file,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    packages: 'external',
    logLevel: 'warning',
  })
  const { evidence } = await import(pathToFileURL(file).href)
  await evidence(root, Number(runs), Number(rows), Number(history), (line) => process.stdout.write(`${line}\n`))
} finally {
  rmSync(file, { force: true })
}
