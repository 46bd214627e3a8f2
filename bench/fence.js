// How long a halt takes while a crowd writes:
//
//   node bench/fence.js             150 clients in 6 processes, 50 halts among short transactions, 50 with some that hold on for 10 s
//   node bench/fence.js 40 20       fewer clients, fewer halts
//
// Measured at the client, in a process of its own that does nothing else. The clients are those of
// test/attacks/fence.test.ts, which proves that nothing commits after the return; this only takes the time.
import { rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const file = join(root, 'node_modules', `.fence-${process.pid}.mjs`)
const { build } = createRequire(join(root, 'package.json'))('esbuild')
const [clients = '150', halts = '50'] = process.argv.slice(2)
try {
  await build({
    absWorkingDir: root,
    entryPoints: ['bench/fence-parts.ts'],
    outfile: file,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    packages: 'external',
    // Paths of the sources are counted from where this file was.
    define: { 'import.meta.dirname': JSON.stringify(join(root, 'test', 'contract')) },
    logLevel: 'warning',
  })
  const { fence } = await import(pathToFileURL(file).href)
  await fence(file, Number(clients), Number(halts), (line) => process.stdout.write(`${line}\n`))
} finally {
  rmSync(file, { force: true })
}
