// How fast the ledger is sealed, verified, exported, and an export verified:
//
//   node bench/ledger.js               1 million rows
//   node bench/ledger.js 100000        fewer
//
// One private Postgres with fsync on. Beside each wall time stands the processor time that the database's sessions and this
// process used: on a busy machine only the latter says something. Promised: sealing 50,000 rows/s, verifying 200,000 rows/s.
import { rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const file = join(root, 'node_modules', `.ledger-${process.pid}.mjs`)
const { build } = createRequire(join(root, 'package.json'))('esbuild')
const [rows = '1000000'] = process.argv.slice(2)
try {
  await build({
    absWorkingDir: root,
    entryPoints: ['bench/ledger-parts.ts'],
    outfile: file,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    packages: 'external',
    logLevel: 'warning',
  })
  const { measure } = await import(pathToFileURL(file).href)
  await measure(root, Number(rows), (line) => process.stdout.write(`${line}\n`))
} finally {
  rmSync(file, { force: true })
}
