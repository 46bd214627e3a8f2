import { randomBytes } from 'node:crypto'
import { tmpdir } from 'node:os'
import { setTimeout as pause } from 'node:timers/promises'
import * as z from 'zod'
import { defineAgent, TaskFailure, type Context } from '../../../src/agents/define.ts'
import { openPostgres } from '../../../src/drivers/postgres/driver.ts'
import { createLogger } from '../../../src/redaction/logger.ts'
import { startFleet } from '../../../src/runtime/fleet.ts'

/** One process of the fleet: a worker and the delivery of the outbox, with agents that fail in every way an agent can. */

const { CREW_URL = '', CREW_SLOTS = '', CREW_WORK_MS = '', CREW_TIMEOUT_MS = '' } = process.env
const [slots, workMs, timeoutMs] = [CREW_SLOTS, CREW_WORK_MS, CREW_TIMEOUT_MS].map(Number)
if (slots === undefined || workMs === undefined || timeoutMs === undefined) throw new Error('how many, how long?')

const chance = (percent: number) => Math.random() * 100 < percent
const work = () => pause(Math.random() * workMs)
const effect = (context: Context, more: { readonly fail?: true; readonly note?: string } = {}) =>
  context.apply('app.effect', { task: context.task.id, attempt: context.task.attempt, ...more })

const input = z.looseObject({ n: z.number() })
const output = z.void()

/** Tried again until it works: none of these may be lost. */
const demo = defineAgent({
  name: 'demo',
  functions: {
    'demo.plain': {
      input,
      output,
      run: async (context) => {
        await work()
        effect(context)
      },
    },
    'demo.quiet': { input, output, run: work },
    'demo.tell': {
      input,
      output,
      run: async (context, { n }) => {
        effect(context)
        await work()
        context.publish('demo.told', { task: context.task.id }, n % 3 === 0 ? { order: `key-${n % 50}` } : {})
      },
    },
    'demo.flaky': {
      input,
      output,
      run: async (context) => {
        effect(context)
        context.publish('demo.told', { task: context.task.id })
        await work()
        if (chance(30)) throw new TaskFailure('external_api', 'the carrier does not answer')
      },
    },
    'demo.parent': {
      input,
      output,
      run: async (context, { n }) => {
        await work()
        effect(context)
        context.enqueue('demo.child', { n, parent: context.task.id })
      },
    },
    'demo.child': { input, output, run: async (context) => effect(context) },
    'demo.steps': {
      input,
      output,
      run: async (context) => {
        await context.step('first', async () => 'said once')
        await context.spend({ calls: 1 })
        await work()
        if (chance(20)) throw new TaskFailure('external_api', 'the carrier does not answer')
        effect(context)
      },
    },
    // Longer than the policy allows, now and then: half of these look at their signal.
    'demo.slow': {
      input,
      output,
      run: async (context) => {
        if (chance(40)) await pause(timeoutMs * 1.3, undefined, chance(50) ? { signal: context.signal } : {})
        effect(context)
      },
    },
  },
})

/** Tried twice: done, or a dead letter. */
const frail = defineAgent({
  name: 'frail',
  functions: {
    'frail.half': {
      input,
      output,
      run: async (context) => {
        effect(context)
        await work()
        if (chance(50)) throw new Error('it went wrong')
      },
    },
    'frail.doomed': {
      input,
      output,
      run: async (context) => {
        effect(context)
        context.publish('demo.told', { task: context.task.id })
        await work()
        throw new Error('it always goes wrong')
      },
    },
    // What it did before must go with what fails.
    'frail.broken': {
      input,
      output,
      run: async (context) => {
        effect(context)
        effect(context, { fail: true })
        context.publish('demo.told', { task: context.task.id })
      },
    },
    'frail.unfit': { input: z.object({ n: z.string() }), output, run: async (context) => effect(context) },
  },
})

const driver = await openPostgres({
  driver: 'postgres',
  url: CREW_URL,
  connectTimeoutMs: 5000,
  callTimeoutMs: 8000,
})
const fleet = await startFleet({
  driver,
  agents: [demo, frail],
  slots,
  name: `crew/${process.pid}`,
  host: 'crew',
  pid: process.pid,
  pollMs: 200,
  version: '0',
  otel: { endpoint: null, headers: {} },
  outbox: {
    secrets: () => Promise.reject(new Error('no secrets here')),
    folder: tmpdir(),
    lookup: async () => ['127.0.0.1'],
    random: randomBytes,
  },
  log: createLogger({
    write: (entry) => process.stderr.write(`${JSON.stringify(entry)}\n`),
    clock: () => new Date(),
  }),
  fetch,
  clock: () => new Date(),
  now: () => performance.now(),
})
process.stdout.write('ready\n')
process.once('SIGTERM', () => {
  void fleet
    .stop(1000)
    .then(() => driver.close())
    .then(() => process.exit(0))
})
