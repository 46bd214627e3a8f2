// https://github.com/timgit/pg-boss, which polls, at most twice a second for each of its workers. Its settings here are the
// fastest of what was tried: `notifyWorker` after a batch that wasn't empty looks again at once (16.2k to 20.3k jobs/s on a
// busy machine), `priority: false` doesn't sort by priority (29.5k). At 1,000 jobs/s two workers keep each other awake more
// often than one or four do. Waking it from a timer of our own, faster than it allows, would not be its speed.
import { createRequire } from 'node:module'
import PgBoss from 'pg-boss'

export const { version } = createRequire(import.meta.url)('pg-boss/package.json')

export const settings = {
  throughput: { workers: 4, batchSize: 2000, pollingIntervalSeconds: 0.5, priority: false },
  latency: { workers: 2, batchSize: 2000, pollingIntervalSeconds: 0.5, priority: false },
}

export const unfinished = "select count(*)::int as jobs from pgboss.job where name = 'bench' and state <> 'completed'"
export const anyUnfinished =
  "select exists (select 1 from pgboss.job where name = 'bench' and state <> 'completed') as yes"

const queue = 'bench'

async function open(url, options) {
  const boss = new PgBoss({ connectionString: url, ...options })
  boss.on('error', (error) => process.stderr.write(`${error.message}\n`))
  await boss.start()
  return boss
}

export async function setup({ url }) {
  const boss = await open(url, {})
  await boss.createQueue(queue)
}

export async function openSender({ url }) {
  const boss = await open(url, { max: 20, migrate: false, supervise: false, schedule: false })
  return {
    bulkEnqueue: (payloads) => boss.insert(payloads.map((data) => ({ name: queue, data }))),
    enqueueOne: (payload) => boss.send(queue, payload),
  }
}

export async function openWorker({ url, aim, onStart }) {
  const boss = await open(url, {})
  const { workers, ...options } = settings[aim]
  return {
    start: async () => {
      for (let i = 0; i < workers; i++) {
        const id = await boss.work(queue, options, async (jobs) => {
          for (const { data } of jobs) onStart(data)
          // More may be there already. It would wait for the next poll otherwise.
          boss.notifyWorker(id)
        })
      }
    },
  }
}
