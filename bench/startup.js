// How long a command takes to start, as a ratio to `node -e 0` of the same run: `node bench/startup.js [runs]`.
// Whole processes, taken in turn, so that a machine that gets slower slows all of them.
import { spawn, spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { cpus, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const runs = Number(process.argv[2] ?? 15)
const root = resolve(fileURLToPath(import.meta.url), '../..')
const program = join(root, 'bin/run.js')
const folder = mkdtempSync(join(tmpdir(), 'tms-bench-'))
const env = { PATH: process.env.PATH, HOME: folder, XDG_CONFIG_HOME: folder }

/**
 * PGlite alone: opens a cleanly closed copy of the same directory, asks it something, ends without closing. What the
 * embedded driver cannot be faster than; it also syncs every commit and closes the database.
 */
const bare = join(folder, 'bare.mjs')
const pglite = pathToFileURL(createRequire(join(root, 'package.json')).resolve('@electric-sql/pglite')).href
writeFileSync(
  bare,
  `const { PGlite } = await import(${JSON.stringify(pglite)})\nconst db = await PGlite.create(process.argv[2])\nawait db.query('select 1')\nprocess.exit(0)\n`,
)

function cleanCopy() {
  const copy = join(folder, 'copy')
  rmSync(copy, { recursive: true, force: true })
  cpSync(join(folder, '.tms/db'), copy, { recursive: true })
  return copy
}

const time = (args, expected = 0) => {
  const since = process.hrtime.bigint()
  const { status, stderr } = spawnSync(process.execPath, args, { cwd: folder, env, encoding: 'utf8' })
  const ms = Number(process.hrtime.bigint() - since) / 1e6
  if (status !== expected) throw new Error(`${args.join(' ')} ended with ${status}: ${stderr}`)
  return ms
}
const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]

const results = new Map()
function measure(cases) {
  for (let i = -1; i < runs; i++) {
    for (const [name, run] of cases) {
      const ms = run()
      // the first round warms the disk cache
      if (i >= 0) results.set(name, [...(results.get(name) ?? []), ms])
    }
  }
}

try {
  time([program, 'init', '--yes'])
  measure([
    ['node -e 0', () => time(['-e', '0'])],
    ['--version', () => time([program, '--version'])],
    ['--help', () => time([program, '--help'])],
    ['flags set --help', () => time([program, 'flags', 'set', '--help'])],
    ['usage error', () => time([program, 'flags', 'list', '--nosuch'], 2)],
    ['PGlite alone', () => time([bare, cleanCopy()])],
    ['flags list, alone', () => time([program, 'flags', 'list'])],
  ])
  const owner = spawn(process.execPath, [program, 'up'], { cwd: folder, env, stdio: ['ignore', 'pipe', 'inherit'] })
  await new Promise((resolve) => owner.stdout.once('data', resolve))
  measure([
    ['node -e 0 (2)', () => time(['-e', '0'])],
    ['flags list, through an owner', () => time([program, 'flags', 'list'])],
    [
      'flags set, through an owner',
      () => time([program, 'flags', 'set', 'budget.agents.maxConcurrent', '100', '--why', 'bench']),
    ],
  ])
  owner.kill('SIGTERM')
  await new Promise((resolve) => owner.once('exit', resolve))

  const { version } = createRequire(import.meta.url)('../package.json')
  process.stdout.write(
    `tms ${version}, Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model}, ${runs} runs, medians\n\n`,
  )
  const base = median(results.get('node -e 0'))
  const bareMs = median(results.get('PGlite alone'))
  for (const [name, values] of results) {
    const ms = median(values)
    const limit = {
      '--version': 1.6,
      '--help': 4.5,
      'flags set --help': 4.5,
      'usage error': 4.5,
      'flags list, through an owner': 9,
      'flags set, through an owner': 9,
    }[name]
    const promise =
      name === 'flags list, alone'
        ? `PGlite + ${Math.round(ms - bareMs)} ms (at most 150)`
        : limit
          ? `at most ${limit}`
          : ''
    process.stdout.write(
      `${name.padEnd(30)} ${ms.toFixed(0).padStart(6)} ms ${(ms / base).toFixed(2).padStart(7)} ×   ${promise}\n`,
    )
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
