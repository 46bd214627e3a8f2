import type { Effects, LogEntry } from '../drivers/contract/fleet.ts'
import type { Json } from '../redaction/redact.ts'
import { execute, Stopper } from '../runtime/execute.ts'
import { startTracing } from '../tracing/tracer.ts'
import type { Agent, Spending } from './define.ts'

export type Rehearsal = {
  readonly output: Json | undefined
  readonly events: NonNullable<Effects['events']>
  readonly tasks: NonNullable<Effects['tasks']>
  readonly applied: NonNullable<Effects['apply']>
  readonly logs: readonly LogEntry[]
  readonly spent: readonly Spending[]
  /** Set when the function failed, with what a worker would store. */
  readonly failure: { readonly class: string; readonly error: string } | null
}

export type RehearsalOptions = {
  readonly tenant?: string
  readonly attempt?: number
  readonly steps?: Readonly<Record<string, Json>>
  readonly flags?: Readonly<Record<string, Json>>
  readonly fetch?: typeof fetch
}

/** Runs one function as a worker would, without a database: for tests of agents. */
export async function runForTest(
  agent: Agent,
  fn: string,
  input: unknown,
  options: RehearsalOptions = {},
): Promise<Rehearsal> {
  const known = agent.functions[fn]
  if (known === undefined) throw new TypeError(`agent ${agent.name} has no function ${fn}`)
  const spent: Spending[] = []
  const tracer = await startTracing({
    enabled: false,
    samplePercent: 0,
    endpoint: null,
    headers: {},
    serviceName: 'rehearsal',
    serviceVersion: '0',
    environment: 'rehearsal',
    redact: (value) => value,
    fetchTimeoutMs: 1000,
  })
  const { rest, logs } = await execute(
    {
      id: '1',
      claim: 1,
      attempt: options.attempt ?? 1,
      maxAttempts: 3,
      companyId: '00000000-0000-4000-8000-000000000000',
      tenant: options.tenant ?? 'test',
      agent: agent.name,
      fn,
      payload: input,
      traceparent: null,
      timeoutMs: 60_000,
      steps: options.steps ?? null,
    },
    known,
    new Stopper(),
    {
      now: () => performance.now(),
      tracer,
      fetch: options.fetch ?? fetch,
      spend: async (_, amount) => void spent.push(amount),
      storeStep: async (_task, _name, result) => result,
      flag: async (_, key) => options.flags?.[key] ?? null,
    },
  )
  return {
    output: rest?.output,
    events: rest?.effects?.events ?? [],
    tasks: rest?.effects?.tasks ?? [],
    applied: rest?.effects?.apply ?? [],
    logs,
    spent,
    failure: rest?.outcome === 'failed' ? { class: rest.class ?? 'bug', error: rest.error ?? '' } : null,
  }
}
