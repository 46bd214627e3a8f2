import { randomUUID } from 'node:crypto'
import type { AgentPolicy } from '../../src/drivers/contract/fleet.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { readCatalogue, loadCatalogue } from '../../src/flags/catalogue.ts'
import type { Subject } from '../contract/subjects.ts'
import { join } from 'node:path'

/** A database in which a fleet may work: environment, posture, two tenants, and policies. */

export const policy = (agent: string, change: Partial<AgentPolicy> = {}): AgentPolicy => ({
  agent,
  functions: [`${agent}.one`, `${agent}.two`, `${agent}.careful`],
  approval: [`${agent}.careful`],
  publish: [`${agent}.*`],
  enqueue: [`${agent}.*`],
  apply: [],
  max_attempts: 3,
  timeout_ms: 30_000,
  backoff_ms: 1,
  backoff_cap_ms: 2,
  requests_per_minute: null,
  concurrency: null,
  tokens_per_task: null,
  calls_per_task: null,
  cost_per_task: null,
  tokens_per_day: null,
  calls_per_day: null,
  cost_per_day: null,
  breaker_percent: 50,
  breaker_samples: 1000,
  breaker_seconds: 60,
  ...change,
})

/** All of a claim as completed, with nothing else to say. */
export const doneAll = (tasks: readonly { readonly id: string; readonly claim: number }[]) => ({
  ids: tasks.map(({ id }) => id).join(','),
  claims: tasks.map(({ claim }) => claim).join(','),
  ms: tasks.map(() => 1).join(','),
})

export type Fleet = {
  readonly subject: Subject
  readonly operator: Driver
  /** As the service account that works. */
  readonly worker: Driver
  load(...policies: AgentPolicy[]): Promise<void>
  set(key: string, value: boolean | number | string, tenant?: string): Promise<void>
  enqueue(tenant: string, tasks: readonly EnqueuedTask[]): Promise<string[]>
  hello(agents: readonly string[], slots?: number, driver?: Driver): Promise<string>
  stop(): Promise<void>
}

type EnqueuedTask = {
  readonly function: string
  readonly payload?: Record<string, string | number>
  readonly key?: string
  readonly delay_ms?: number
  readonly priority?: number
}

export async function readyFleet(
  subject: Subject,
  policies: readonly AgentPolicy[] = [policy('demo')],
): Promise<Fleet> {
  const operator = await subject.operator()
  granted(
    await operator.call('environment_init', {
      request_id: randomUUID(),
      environment: 'development',
      override_token_sha256: 'ab'.repeat(32),
      signing_key_fingerprint: null,
    }),
  )
  await loadCatalogue(operator, await readCatalogue([join(import.meta.dirname, '../../policies')]))
  const set: Fleet['set'] = async (key, value, tenant) => {
    granted(
      await operator.call('flags_set', {
        request_id: randomUUID(),
        key,
        level: tenant === undefined ? 'global' : 'tenant',
        ...(tenant === undefined ? {} : { tenant }),
        value,
        why: 'the test says so',
      }),
    )
  }
  await set('agents.autonomousEnabled', true)
  await set('autonomy.mode', 'FULL')
  await set('ops.replayEnabled', true)
  for (const key of ['acme', 'globex']) {
    granted(await operator.call('tenants_add', { request_id: randomUUID(), key, name: key }))
  }
  const load: Fleet['load'] = async (...list) => {
    granted(await operator.call('agents_policies_load', { request_id: randomUUID(), policies: list }))
  }
  await load(...policies)
  const worker = await subject.as(await subject.account('agents'))
  return {
    subject,
    operator,
    worker,
    load,
    set,
    async enqueue(tenant, tasks) {
      return granted(await operator.call('tasks_enqueue', { request_id: randomUUID(), tenant, tasks: [...tasks] })).ids
    },
    async hello(agents, slots = 10, driver = worker) {
      const said = await driver.call('worker_hello', {
        request_id: randomUUID(),
        name: 'test',
        host: 'test',
        pid: process.pid,
        agents: [...agents],
        slots,
      })
      return granted(said).worker
    },
    async stop() {
      await worker.close()
      await operator.close()
      await subject.stop()
    },
  }
}
