import { randomBytes, randomUUID } from 'node:crypto'
import pg from 'pg'
import * as z from 'zod'
import { defineAgent } from '../../src/agents/define.ts'
import { openQueue } from '../../src/agents/queue.ts'
import { readSqlFiles } from '../../src/db/files.ts'
import { push } from '../../src/db/schema.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { loadCatalogue, readCatalogue } from '../../src/flags/catalogue.ts'
import { createLogger } from '../../src/redaction/logger.ts'
import { startWorker } from '../../src/runtime/worker.ts'
import { startTracing } from '../../src/tracing/tracer.ts'

/** What `contenders/tms.js` needs of the product, for esbuild to bundle. Every rail is on, as an installation has them. */

const times = { connectTimeoutMs: 10_000, callTimeoutMs: 30_000 }
const login = 'tms_bench_agents'
const password = 'bench'

export const open = (url: string) => openPostgres({ driver: 'postgres', url, ...times })

export function workerUrl(url: string): string {
  const own = new URL(url)
  own.username = login
  own.password = password
  return own.href
}

/** Schema, operator, flags, tenant, policy, and a login of its own for the workers. */
export async function prepare(root: string, urls: { url: string; superuserUrl: string }, more = ''): Promise<void> {
  const operator = await open(urls.url)
  await push(operator, await readSqlFiles(`${root}/sql`))
  await sql(urls.url, `select tms._bootstrap('postgres', session_user::text, 'bench@example.com')`)
  await sql(
    urls.superuserUrl,
    `do $$ begin if to_regrole('${login}') is null then create role ${login} login password '${password}' connection limit 50 in role tms_caller; end if; end $$;
     grant tms_caller to ${login}; ${more}`,
  )
  const write = () => ({ request_id: randomUUID() })
  granted(
    await operator.call('environment_init', {
      ...write(),
      environment: 'production',
      override_token_sha256: randomBytes(32).toString('hex'),
      signing_key_fingerprint: null,
    }),
  )
  await loadCatalogue(operator, await readCatalogue([`${root}/policies`]))
  for (const [key, value] of [
    ['agents.autonomousEnabled', true],
    ['autonomy.mode', 'FULL'],
    ['ops.replayEnabled', true],
  ] as const) {
    granted(await operator.call('flags_set', { ...write(), key, level: 'global', value, why: 'bench' }))
  }
  granted(await operator.call('tenants_add', { ...write(), key: 'bench', name: 'bench' }))
  granted(
    await operator.call('agents_policies_load', {
      ...write(),
      policies: [
        {
          agent: 'bench',
          functions: ['bench.job', 'bench.event', 'bench.apply'],
          approval: [],
          publish: ['bench.*'],
          enqueue: [],
          apply: ['public.bench_effect'],
          max_attempts: 5,
          timeout_ms: 30_000,
          backoff_ms: 1000,
          backoff_cap_ms: 60_000,
          requests_per_minute: null,
          concurrency: null,
          tokens_per_task: null,
          calls_per_task: null,
          cost_per_task: null,
          tokens_per_day: null,
          calls_per_day: null,
          cost_per_day: null,
          breaker_percent: 5,
          breaker_samples: 20,
          breaker_seconds: 60,
        },
      ],
    }),
  )
  // An event has somebody who wants it; delivering isn't measured.
  granted(
    await operator.call('outbox_targets_set', {
      ...write(),
      targets: [{ name: 'all', kind: 'file', topics: ['bench.*'], config: {} }],
    }),
  )
  granted(
    await operator.call('accounts_rotate', {
      ...write(),
      account: 'agents',
      kind: 'postgres',
      name: login,
      overlap_seconds: 0,
    }),
  )
  await operator.close()
}

async function sql(url: string, text: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(text)
  await client.end()
}

export function agentOf(onStart: (payload: unknown) => void) {
  const input = z.unknown()
  const output = z.void()
  return defineAgent({
    name: 'bench',
    functions: {
      'bench.job': { input, output, run: async (_, payload) => onStart(payload) },
      'bench.event': {
        input,
        output,
        run: async (context, payload) => {
          onStart(payload)
          context.publish('bench.done', { ok: true })
        },
      },
      'bench.apply': {
        input,
        output,
        run: async (context, payload) => {
          onStart(payload)
          context.apply('public.bench_effect', { task: context.task.id })
        },
      },
    },
  })
}

export async function work(url: string, slots: number, onStart: (payload: unknown) => void) {
  const driver = await open(workerUrl(url))
  const tracer = await startTracing({
    enabled: false,
    samplePercent: 0,
    endpoint: null,
    headers: {},
    serviceName: 'bench',
    serviceVersion: '0',
    environment: 'bench',
    redact: (value) => value,
    fetchTimeoutMs: 1000,
  })
  return () =>
    startWorker({
      driver,
      agents: [agentOf(onStart)],
      name: 'bench',
      host: 'bench',
      pid: process.pid,
      slots,
      tracer,
      log: createLogger({
        write: (line) => process.stderr.write(`${JSON.stringify(line)}\n`),
        clock: () => new Date(),
      }),
      fetch,
      now: () => performance.now(),
      pollMs: 1000,
    })
}

export async function sender(url: string, fn = 'bench.job') {
  const driver = await open(url)
  const enqueue = async (payloads: readonly unknown[]) => {
    granted(
      await driver.call('tasks_enqueue', {
        request_id: randomUUID(),
        tenant: 'bench',
        // True: payloads of the bench are flat objects of integers.
        tasks: payloads.map((payload) => ({ function: fn, payload: payload as Record<string, number> })),
      }),
    )
  }
  const queue = openQueue(driver, 'bench')
  return {
    bulkEnqueue: enqueue,
    // True: as above.
    enqueueOne: (payload: unknown) => queue.enqueue({ function: fn, payload: payload as Record<string, number> }),
  }
}
