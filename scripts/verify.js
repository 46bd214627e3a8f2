// Everything that must hold before a change lands. `--full` adds the attacks at the size the promises state.
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { build, install, requireNode, root } from './install.js'
import { outcomeOf } from './outcome.js'

const full = process.argv.includes('--full')
const started = Date.now()
requireNode()
install()
build()

const results = []
const counts = { passed: 0, failed: 0 }
const failures = []
// Two lanes for two cores; neither touches what the other writes.
await Promise.all([
  lane(['lint'], ['knip']),
  lane(['types'], ['format:check'], ['layers'], ['check:roles'], ['check:manifest'], ['check:docs']).then(() =>
    tests('tests with coverage', ['run', '--coverage'], {}),
  ),
])
// Once more what has a full size. One file after the other: some state how long a halt may take with 150 clients, which is all that
// two cores can do.
if (full)
  await tests('attacks at full size', ['run', ...filesWithFullSize(), '--no-file-parallelism'], { TMS_TEST_FULL: '1' })

process.stdout.write('\n')
for (const { name, ok, seconds } of results)
  process.stdout.write(`${ok ? 'ok      ' : 'FAILED  '}${name} (${seconds} s)\n`)
process.stdout.write(
  `in ${Math.round((Date.now() - started) / 1000)} s\n\n${counts.passed} passed, ${counts.failed} failed\n`,
)
// Last, where whoever sees only the end of a log finds them all: each in two lines of its own.
for (const failure of failures) process.stdout.write(`- ${failure.split('\n', 2).join('\n  ').slice(0, 400)}\n`)
process.exitCode = results.every(({ ok }) => ok) ? 0 : 1

async function lane(...scripts) {
  for (const [script] of scripts) await step(`npm run ${script}`, 'npm', ['run', '--silent', script], {})
}

async function tests(name, args, env) {
  const report = join(root, `coverage.${process.pid}.json`)
  await step(
    name,
    process.execPath,
    ['node_modules/vitest/vitest.mjs', ...args, '--reporter=default', '--reporter=json', `--outputFile.json=${report}`],
    env,
  )
  // A run that left no report ran no tests, whatever its exit code says.
  if (!existsSync(report)) return results.push({ name: `${name}: no report`, ok: false, seconds: 0 })
  const outcome = outcomeOf(JSON.parse(readFileSync(report, 'utf8')), root)
  rmSync(report)
  failures.push(...outcome.failures)
  counts.passed += outcome.passed
  counts.failed += outcome.failed
}

function filesWithFullSize() {
  return readdirSync(join(root, 'test'), { recursive: true })
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => join('test', name))
    .filter((file) => readFileSync(join(root, file), 'utf8').includes('TMS_TEST_FULL'))
}

/** Runs a step; what it prints is shown when it has ended, so that two lanes don't mix. */
function step(name, command, args, env) {
  const since = Date.now()
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const output = []
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => output.push(chunk))
    child.once('close', (code) => {
      const ok = code === 0
      results.push({ name, ok, seconds: Math.round((Date.now() - since) / 1000) })
      process.stdout.write(`\n== ${name}: ${ok ? 'ok' : `FAILED (${code})`}\n`)
      process.stdout.write(Buffer.concat(output))
      resolve()
    })
  })
}
