// The process of `actor.js`: does what the runner asks, for the contender named on its command line.
import { readFileSync } from 'node:fs'
import { setImmediate as yieldToEvents, setTimeout as pause } from 'node:timers/promises'
import { percentile } from './report.js'

// Loaded when it is asked for something, so that a library that can't be loaded is an answer and not a crash.
const contender = () => import(`./contenders/${process.argv[2]}.js`)

let sender
let worker
/** How far it came, for the message when it is too late. */
let progress = () => ''

const parts = {
  async introduce() {
    const { version, settings, kinds, unfinished, anyUnfinished } = await contender()
    return { version, settings, kinds, unfinished, anyUnfinished }
  },

  async setup(urls) {
    await (await contender()).setup(urls)
  },

  async openSender(urls) {
    sender = await (await contender()).openSender(urls)
  },

  /** All jobs, call after call. */
  async bulk({ jobs, perCall }) {
    const calls = []
    for (let n = 0; n < jobs; n += perCall) {
      calls.push(Array.from({ length: Math.min(perCall, jobs - n) }, (_, i) => ({ n: n + i })))
    }
    const since = performance.now()
    for (const payloads of calls) await sender.bulkEnqueue(payloads)
    return { ms: performance.now() - since }
  },

  /**
   * One job after the other at their times, whether or not earlier ones are stored yet: a queue that gets slow doesn't
   * get fewer jobs for it. Resolves when each is stored or has failed.
   */
  async steady({ rate, jobs, skip }) {
    const underWay = []
    const late = []
    let stored = 0
    let failed = 0
    let firstError
    progress = () => `${stored} of ${jobs} jobs were stored`
    const since = performance.now() + 20
    for (let n = 0; n < jobs;) {
      const due = since + (n * 1000) / rate
      const early = due - performance.now()
      if (early > 0) {
        await pause(early)
        continue
      }
      if (n >= skip) late.push(-early)
      underWay.push(
        sender.enqueueOne({ n, at: now() }).then(
          () => stored++,
          (error) => {
            failed++
            firstError ??= error.message
          },
        ),
      )
      n++
      // Answers are read also while it is behind.
      await yieldToEvents()
    }
    await Promise.all(underWay)
    return { failed, firstError, lateByMsP99: percentile(late, 99) }
  },

  async openWorker({ jobs, ...urlsAndAim }) {
    const seen = new Uint8Array(jobs)
    const latencies = new Float64Array(jobs)
    const account = { started: 0, repeated: 0, firstAt: 0 }
    let finish
    const all = new Promise((resolve) => (finish = resolve))
    progress = () => `${account.started} of ${jobs} jobs were started`
    const onStart = ({ n, at }) => {
      const startedAt = now()
      if (seen[n] !== 0) {
        // Also what was never sent: outside of the array there is no 0.
        account.repeated++
        return
      }
      seen[n] = 1
      if (at !== undefined) latencies[n] = startedAt - at
      if (account.started === 0) account.firstAt = startedAt
      account.started++
      if (account.started === jobs) finish()
    }
    worker = { account, all, latencies, ...(await (await contender()).openWorker({ ...urlsAndAim, onStart })) }
  },

  async start() {
    const startedAt = now()
    await worker.start()
    return { startedAt }
  },

  async handled() {
    await worker.all
    return { firstAt: worker.account.firstAt }
  },

  async progress() {
    return progress()
  },

  async account() {
    return { ...worker.account, peakBytes: peakMemory() }
  },

  async latencies({ skip }) {
    return { latencies: [...worker.latencies.subarray(skip)] }
  },
}

process.on('message', ({ id, ask, input }) => {
  parts[ask](input).then(
    (value) => process.send({ id, value }),
    (error) => process.send({ id, error: error instanceof Error ? error.message : String(error) }),
  )
})
// The runner is gone, however it went.
process.on('disconnect', () => process.exit(1))
// Ctrl-C reaches this process too. The runner decides what happens then.
process.on('SIGINT', () => undefined)

/** µs of the clock that all processes of a machine share and nobody sets: good for differences between processes. */
function now() {
  return Number(process.hrtime.bigint() / 1000n)
}

/** Not maxRSS where it can be helped: Linux hands that down from the process that forked this one. */
function peakMemory() {
  try {
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024
  } catch {
    return process.resourceUsage().maxRSS * 1024
  }
}
