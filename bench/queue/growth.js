// Whether the queue keeps its time when it grows:
//
//   node bench/queue/growth.js                 10 million finished tasks, 5 million waiting for a paused tenant
//   node bench/queue/growth.js 100000 50000    fewer
import { rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..')
const file = join(root, 'node_modules', `.growth-${process.pid}.mjs`)
const { build } = createRequire(join(root, 'package.json'))('esbuild')
const [finished = '10000000', waiting = '5000000'] = process.argv.slice(2)
try {
  await build({
    absWorkingDir: root,
    entryPoints: ['bench/queue/growth-parts.ts'],
    outfile: file,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    packages: 'external',
    logLevel: 'warning',
  })
  const { growth } = await import(pathToFileURL(file).href)
  await growth(root, Number(finished), Number(waiting), (line) => process.stdout.write(`${line}\n`))
} finally {
  rmSync(file, { force: true })
}
