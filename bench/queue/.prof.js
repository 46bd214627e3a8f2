// How fast the queue is, beside the queues that people would use otherwise:
//
//   npm ci --prefix bench/queue        once: the peers, which nothing else needs
//   node bench/queue/run.js            about 3 minutes for each contender
//     --quick                          a minute; shows that it works, its figures are worth nothing
//     --rounds 5                       instead of 3
//     --only graphile-worker           this contender alone; can be repeated
//     --out result.json                everything that was measured, round by round
//
// Prints a Markdown table. Exits with 1 when something failed: a failure is printed as one and never as a number.
//
// One private Postgres with `fsync` and `synchronous_commit` on. In each round each contender gets a fresh database for
// each measurement, one contender after the other, and each round begins with another one: a machine that gets slower
// slows all of them. Whoever sends and whoever works is a process of its own, started for that measurement alone.
//
// A contender is a file `contenders/<name>.js`, found by being there; `tms.js` is the one that all this is for. It exports
//
//   version                            what was really loaded
//   settings                           { throughput, latency }: options of its worker, printed with the figures
//   setup({ url, superuserUrl })       makes an empty database ready for jobs
//   openSender({ url, superuserUrl })  resolves to, once it is connected,
//     .bulkEnqueue(payloads)             one call that stores all of them; resolves when they are committed
//     .enqueueOne(payload)               one job, committed; many may be under way at once
//   openWorker({ url, superuserUrl, aim, onStart })
//                                      resolves when all is done that can be done before the first look for jobs.
//     .start()                           looks for jobs from now on; the clock of the throughput starts with this call
//                                      `aim` is 'throughput' or 'latency' and picks the settings. The handler of a job calls
//                                      `onStart(payload)` first and has nothing else to do. At most once for each job: twice
//                                      is a failure.
//   kinds                              optional: what a job can do besides, as ['event', 'apply']; openSender gets one as `kind`
//   unfinished                         SQL: one row, `jobs int`, of all jobs that aren't completed, failed ones included
//   anyUnfinished                      SQL: one row, `yes boolean`, the same in cheap: it is asked while the worker works
//
// `url` is the login that owns the database and is no superuser. Payloads are flat objects of integers. Nothing needs to
// be closed: these processes are killed when their measurement is over, so a contender must not start others.
import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, totalmem } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { root, withParts } from '../parts.js'
import { startActor } from './actor.js'
import { measuresFor, percentile, toMarkdown } from './report.js'

const here = dirname(fileURLToPath(import.meta.url))
const usage = readFileSync(fileURLToPath(import.meta.url), 'utf8')
  .split('\n')
  .slice(0, 9)
  .map((line) => line.replace(/^\/\/ ?/, ''))
  .join('\n')

const options = readOptions()
const stop = new AbortController()
let exitCode = 0
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
]) {
  // Once: a second Ctrl-C ends this process at once. Even then nothing stays: the others notice that it is gone.
  process.once(signal, () => {
    exitCode = code
    process.stderr.write('\nStopping ...\n')
    stop.abort(new Error(`stopped by ${signal}`))
  })
}

try {
  await main()
} catch (error) {
  if (!stop.signal.aborted) {
    process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
    exitCode = 1
  }
}
process.exit(exitCode)

async function main() {
  const { startPostgres, query } = await loadServers()
  stop.signal.throwIfAborted()
  const load = loadavg()[0] ?? 0
  const postgres = await startPostgres({
    own: true,
    durable: true,
    settings: { fsync: 'on', synchronous_commit: 'on', shared_buffers: '1GB' },
  })
  try {
    const machine = await describe(postgres, query, load)
    const measures = measuresFor(options)
    const samples = []
    const contenders = []
    for (const name of options.contenders) contenders.push(await introduce(name))

    for (let round = 0; round < options.rounds; round++) {
      for (const contender of rotated(contenders, round)) {
        const record = (sample) => {
          samples.push({ contender: contender.name, round: round + 1, ...sample })
          say(round, contender.name, sample)
        }
        const context = { contender, postgres }
        await measureThroughput(context, record)
      }
    }

    const result = { at: new Date().toISOString(), machine, options, contenders, measures, samples }
    process.stdout.write(`${toMarkdown(result)}\n`)
    if (options.out) writeFileSync(options.out, `${JSON.stringify(result, null, 2)}\n`)
    if (samples.some((sample) => sample.failed !== undefined)) exitCode = 1
  } finally {
    await postgres.stop()
  }
}

/** Bulk enqueue, then working off what that stored, then the memory that took. */
async function measureThroughput(context, record, kind) {
  const { jobs, perCall } = options
  const { unfinished, anyUnfinished } = context.contender
  const expected = kind === undefined ? ['bulk', 'throughput', 'memory'] : [`throughput-${kind}`]
  await attempt(expected, record, async (done) => {
    await withDatabase(context, async ({ urls, ask, actor }) => {
      const sender = await actor('openSender', { ...urls, kind })
      const { ms } = await sender.ask('bulk', { jobs, perCall }, 300)
      sender.kill()
      const [stored] = await ask(unfinished)
      if (stored?.jobs !== jobs) throw new Error(`${stored?.jobs} of ${jobs} jobs were stored`)
      if (kind === undefined) done({ measure: 'bulk', value: jobs / (ms / 1000) })

      // A queue that has been there for a while: statistics known, no dirty pages left over from filling it.
      await ask('vacuum analyze')
      await ask('checkpoint')

      const worker = await actor('openWorker', { ...urls, aim: 'throughput', jobs })
      const { startedAt } = await worker.ask('start')
      const { firstAt } = await worker.ask('handled', {}, 180)
      // The handlers are through, and their completion is on its way to the database: only that counts.
      const deadline = now() + 60e6
      let completedAt
      for (;;) {
        const [left] = await ask(anyUnfinished)
        completedAt = now()
        if (left?.yes === false) break
        if (completedAt > deadline) throw new Error('60 s after the last handler, jobs are still not completed')
        await pause(2, undefined, { signal: stop.signal })
      }
      const { repeated, peakBytes } = await worker.ask('account')
      if (repeated > 0) throw new Error(`${repeated} starts of jobs that had started before or were never sent`)
      done({
        measure: kind === undefined ? 'throughput' : `throughput-${kind}`,
        value: jobs / ((completedAt - startedAt) / 1e6),
        firstHandlerMs: (firstAt - startedAt) / 1000,
      })
      if (kind === undefined) done({ measure: 'memory', value: peakBytes / 1e6 })
    })
  })
}

/** From just before a job is sent to the start of its handler, at a rate that waits for nobody. */
async function measureLatency(context, rate, record) {
  const { seconds, warmUp } = options
  const jobs = rate * (warmUp + seconds)
  const skip = rate * warmUp
  const points = [50, 95, 99]
  const measure = (point) => `latency-${rate}-p${point}`
  await attempt(points.map(measure), record, async (done) => {
    await withDatabase(context, async ({ urls, actor }) => {
      const worker = await actor('openWorker', { ...urls, aim: 'latency', jobs })
      await worker.ask('start')
      const sender = await actor('openSender', urls)
      const sent = await sender.ask('steady', { rate, jobs, skip }, warmUp + seconds + 60)
      if (sent.failed > 0) throw new Error(`${sent.failed} of ${jobs} jobs could not be sent: ${sent.firstError}`)
      await worker.ask('handled', {}, 30)
      const { repeated } = await worker.ask('account')
      if (repeated > 0) throw new Error(`${repeated} starts of jobs that had started before or were never sent`)
      const { latencies } = await worker.ask('latencies', { skip })
      for (const point of points) {
        done({ measure: measure(point), value: percentile(latencies, point) / 1000, lateByMsP99: sent.lateByMsP99 })
      }
    })
  })
}

/** A fresh database, set up by the contender, and what it takes to play in it. Everything is gone afterwards. */
async function withDatabase({ contender, postgres }, use) {
  const database = await postgres.createDatabase()
  const actors = []
  const actor = async (what, input) => {
    const started = startActor(contender.name, stop.signal)
    actors.push(started)
    await started.ask(what, input)
    return started
  }
  let client
  try {
    const { url, superuserUrl } = database
    const urls = { url, superuserUrl }
    // Its process ends here: some libraries begin to maintain the database as soon as they are connected.
    ;(await actor('setup', urls)).kill()
    client = await connect(superuserUrl)
    const ask = async (sql) => {
      stop.signal.throwIfAborted()
      return (await client.query(sql)).rows
    }
    // What came before must not be written to disk at the expense of what is measured now.
    await ask('checkpoint')
    await use({ urls, ask, actor })
  } finally {
    for (const each of actors) each.kill()
    await client?.end()
    await database.drop()
  }
}

/** Records what was measured; the rest of `expected` failed, for the same reason. */
async function attempt(expected, record, measure) {
  const missing = new Set(expected)
  try {
    await measure((sample) => {
      missing.delete(sample.measure)
      record(sample)
    })
  } catch (error) {
    stop.signal.throwIfAborted()
    const reason = error instanceof Error ? error.message : String(error)
    for (const each of missing) record({ measure: each, failed: reason })
  }
}

/** Version, settings and SQL; asked in a process of its own, so that a library that can't be loaded ends nothing here. */
async function introduce(name) {
  const actor = startActor(name, stop.signal)
  try {
    return { name, ...(await actor.ask('introduce')) }
  } catch (error) {
    stop.signal.throwIfAborted()
    // Its measurements fail for the same reason, one by one.
    return { name, version: 'not loaded', settings: null, failed: error.message }
  } finally {
    actor.kill()
  }
}

/** The starter of the tests, which can be root and finds the binaries. It is TypeScript, and this node isn't. */
function loadServers() {
  return withParts('test/servers/postgres.ts', (servers) => servers)
}

async function connect(url) {
  const { default: pg } = await import('pg')
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  return client
}

async function describe(postgres, query, load) {
  const names = ['server_version', 'fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers']
  const rows = await query(
    postgres.superuserUrl,
    'select name, current_setting(name) as value from unnest($1::text[]) as name',
    [names],
  )
  const settings = Object.fromEntries(rows.map(({ name, value }) => [name, value]))
  for (const name of ['fsync', 'synchronous_commit', 'full_page_writes']) {
    if (settings[name] !== 'on')
      throw new Error(`${name} is ${settings[name]}: what is measured must survive a power cut`)
  }
  const { status, stdout } = spawnSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root, encoding: 'utf8' })
  return {
    cores: cpus().length,
    model: cpus()[0]?.model ?? 'unknown',
    memoryGb: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    postgres: settings,
    load,
    commit: status === 0 ? stdout.trim() : null,
  }
}

function readOptions() {
  const fail = (message) => {
    process.stderr.write(`${message}\n\n${usage}\n`)
    process.exit(2)
  }
  // The one that this is for comes first, in the table too.
  const known = readdirSync(join(here, 'contenders'))
    .filter((file) => file.endsWith('.js'))
    .map((file) => file.replace(/\.js$/, ''))
    .sort((a, b) => Number(b === 'tms') - Number(a === 'tms') || a.localeCompare(b))
  let values
  try {
    ;({ values } = parseArgs({
      options: {
        quick: { type: 'boolean', default: false },
        rounds: { type: 'string' },
        only: { type: 'string', multiple: true },
        out: { type: 'string' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }))
  } catch (error) {
    fail(error.message)
  }
  if (values.help) {
    process.stdout.write(`${usage}\n`)
    process.exit(0)
  }
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 3))
  if (!Number.isInteger(rounds) || rounds < 1) fail(`--rounds takes a whole number from 1, not ${values.rounds}`)
  for (const name of values.only ?? []) {
    if (!known.includes(name)) fail(`There is no contender ${name}. There are: ${known.join(', ')}`)
  }
  const out = values.out === undefined ? null : resolve(values.out)
  try {
    // Now, and not after ten minutes.
    if (out) accessSync(dirname(out), constants.W_OK)
  } catch {
    fail(`--out: ${dirname(out)} is no folder that can be written to`)
  }
  if (!existsSync(join(here, 'node_modules'))) fail('The peers are not installed: npm ci --prefix bench/queue')
  return {
    quick: values.quick,
    rounds,
    contenders: values.only ? known.filter((name) => values.only.includes(name)) : known,
    out,
    jobs: values.quick ? 5_000 : 50_000,
    perCall: 1_000,
    rates: [100, 1_000],
    seconds: values.quick ? 2 : 20,
    // Compiling, connecting and planning the first statements is over by then, for everybody.
    warmUp: values.quick ? 1 : 3,
  }
}

function rotated(list, by) {
  const start = by % list.length
  return [...list.slice(start), ...list.slice(0, start)]
}

/** µs of the clock that all processes of a machine share and nobody sets: good for differences between processes. */
function now() {
  return Number(process.hrtime.bigint() / 1000n)
}

function say(round, name, { measure, value, failed }) {
  const what = failed === undefined ? String(Math.round(value * 10) / 10) : `failed: ${failed}`
  process.stderr.write(`round ${round + 1} of ${options.rounds}  ${name.padEnd(16)} ${measure.padEnd(18)} ${what}\n`)
}
