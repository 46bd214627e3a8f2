// https://worker.graphile.org, at the settings of its page on performance. What is different was faster here: fetching 5,000
// jobs at once for the throughput (44k to 46k jobs/s). For the latency the local queue costs 0.3 ms at 100 jobs/s; without
// it the worker fell behind at 1,000 jobs/s on 2 cores, and a job waited 0.1 to 0.6 s instead of 2 ms.
import { createRequire } from 'node:module'
import { Logger, makeWorkerUtils, run, runMigrations } from 'graphile-worker'

export const { version } = createRequire(import.meta.url)('graphile-worker/package.json')

export const settings = {
  throughput: {
    concurrentJobs: 24,
    maxPoolSize: 26,
    localQueue: { size: 5000 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
  latency: {
    concurrentJobs: 24,
    maxPoolSize: 26,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
}

export const unfinished = 'select count(*)::int as jobs from graphile_worker._private_jobs'
export const anyUnfinished = 'select exists (select 1 from graphile_worker._private_jobs) as yes'

// It prints a line for each job otherwise, which would be what is measured.
const logger = new Logger(() => (level, message) => {
  if (level === 'error') process.stderr.write(`${message}\n`)
})
const task = 'bench'

export async function setup({ url }) {
  await runMigrations({ connectionString: url, logger })
}

export async function openSender({ url }) {
  const utils = await makeWorkerUtils({ connectionString: url, maxPoolSize: 20, logger })
  return {
    bulkEnqueue: (payloads) => utils.addJobs(payloads.map((payload) => ({ identifier: task, payload }))),
    enqueueOne: (payload) => utils.addJob(task, payload),
  }
}

export async function openWorker({ url, aim, onStart }) {
  return {
    start: async () => {
      await run({
        preset: { worker: { connectionString: url, logger, ...settings[aim] } },
        taskList: { [task]: async (payload) => onStart(payload) },
        parsedCronItems: [],
        noHandleSignals: true,
      })
    },
  }
}
