import * as z from 'zod'
import { decimal, json, scope, timestamp, wideInteger, write, type Entry } from './values.ts'

/** The fleet's half of the contract: fence, workers, tasks, agents, outbox, dead letters. */

export const errorClasses = ['timeout', 'validation', 'external_api', 'quota_exceeded', 'policy', 'bug'] as const
export type ErrorClass = (typeof errorClasses)[number]
export const taskStates = ['pending', 'running', 'awaiting_approval', 'completed', 'failed', 'quarantined'] as const
export const agentStates = ['running', 'paused', 'draining', 'quarantined'] as const
export const targetKinds = ['webhook', 'n8n', 'slack', 'pagerduty', 'http', 'file'] as const

const id = wideInteger
const count = z.int().min(0)

const fence = z.object({ halted: z.boolean(), epoch: z.number(), safe_mode: z.boolean() })

/** What every answer to a worker says: whether to stop, and whom to leave alone. */
export type Control = z.infer<typeof control>
const control = fence.extend({
  agents: z.record(z.string(), z.enum(agentStates)),
  /** By the tenant's id. */
  tenants: z.record(z.string(), z.enum(agentStates)),
})

const terminated = z.array(
  z.object({
    pid: z.number(),
    login: z.string().nullable(),
    application: z.string().nullable(),
    transaction_began: timestamp.nullable(),
  }),
)
/** Since the last halt was ended; null: none was. */
const resumedMsAgo = z.number().nullable().default(null)
export const halt = z.object({
  halt: id,
  kind: z.enum(['halt', 'safe_mode']),
  epoch: z.number(),
  at: timestamp,
  by: z.string(),
  why: z.string(),
  fenced: z.boolean(),
  ms_to_fence: decimal,
  waited_for: z.number(),
  terminated,
  survivors: z.array(z.string()),
  in_flight: z.number(),
  resumed_at: timestamp.nullable(),
  resumed_by: z.string().nullable(),
  acknowledged: z.array(z.object({ worker: z.string(), host: z.string(), at: timestamp.nullable() })),
  silent: z.array(z.object({ worker: z.string(), host: z.string(), lease_until: timestamp.nullable() })),
})

/** Columns that belong together by position: a claim of 500 is written and parsed a hundred times a second. */
const claimedColumns = z.object({
  /** Joined with commas, as all that are texts here: no value of these can hold one. */
  ids: z.string(),
  /** The newest claim may end the task. */
  claims: z.string(),
  attempts: z.string(),
  /** most attempts */
  most: z.string(),
  /** places in `queues` */
  queues: z.string(),
  functions: z.string(),
  /** Checked by the functions' own schemas. */
  payloads: z.array(z.unknown()),
  /** Null: none has one. */
  traceparents: z.array(z.string().nullable()).nullable(),
})
const claimedQueue = z.tuple([
  /** tenant's id */ z.string(),
  /** tenant's key */ z.string(),
  /** agent */ z.string(),
  /** time limit in ms */ z.number(),
])
const claimAnswer = z.object({
  control,
  queues: z.array(claimedQueue),
  tasks: claimedColumns.nullable(),
  /** By task: results of the steps that an earlier attempt made. */
  steps: z.record(z.string(), z.record(z.string(), z.unknown())),
  /** It was the limit or the slots that ended the list. */
  more: z.boolean(),
  /** A later claim was there before it, or this very one, whose answer got lost: nothing was done. */
  overtaken: z.boolean().optional(),
})

/** One claimed task, as a worker holds it. */
export type ClaimedTask = {
  readonly id: string
  readonly claim: number
  readonly attempt: number
  readonly maxAttempts: number
  readonly companyId: string
  readonly tenant: string
  readonly agent: string
  readonly fn: string
  readonly timeoutMs: number
  readonly payload: unknown
  readonly traceparent: string | null
  readonly steps: Readonly<Record<string, unknown>> | null
}

function claimedTasks({ tasks, queues, steps }: z.infer<typeof claimAnswer>): ClaimedTask[] {
  if (tasks === null) return []
  const column = (text: string) => text.split(',')
  const [claims, attempts, most, places, functions] = [
    column(tasks.claims),
    column(tasks.attempts),
    column(tasks.most),
    column(tasks.queues),
    column(tasks.functions),
  ]
  return column(tasks.ids).map((id, n) => {
    const [companyId, tenant, agent, timeoutMs] = queues[Number(places[n])] ?? ['', '', '', 0]
    return {
      id,
      claim: Number(claims[n]),
      attempt: Number(attempts[n]),
      maxAttempts: Number(most[n]),
      companyId,
      tenant,
      agent,
      fn: functions[n] ?? '',
      timeoutMs,
      payload: tasks.payloads[n],
      traceparent: tasks.traceparents?.[n] ?? null,
      steps: steps[id] ?? null,
    }
  })
}

export const taskOutcomes = [
  'completed',
  'awaiting_approval',
  'retry',
  'failed',
  'quarantined',
  'returned',
  'paused',
  'stale',
] as const

/** What a task did besides ending: commits with its end, or not at all. */
export type Effects = z.infer<typeof effects>
const effects = z.strictObject({
  apply: z.array(z.strictObject({ fn: z.string(), args: json })).optional(),
  events: z
    .array(
      z.strictObject({
        topic: z.string(),
        payload: json,
        /** Events of one key reach a target one after the other. */
        order: z.string().optional(),
        /** Within a day, one event. */
        key: z.string().optional(),
        traceparent: z.string().optional(),
      }),
    )
    .optional(),
  tasks: z
    .array(
      z.strictObject({
        function: z.string(),
        payload: json,
        key: z.string().optional(),
        delay_ms: z.int().optional(),
        priority: z.int().optional(),
        traceparent: z.string().optional(),
      }),
    )
    .optional(),
})

export type EndedTask = z.infer<typeof endedTask>
const endedTask = z.strictObject({
  id: z.string(),
  claim: z.number(),
  outcome: z.enum(['completed', 'failed', 'returned']),
  ms: z.number().optional(),
  trace: z.string().nullable().optional(),
  class: z.enum(errorClasses).optional(),
  error: z.string().optional(),
  retry: z.boolean().optional(),
  /** Of a returned one: not claimed again before. */
  delay_ms: z.int().optional(),
  /** Failed because its input doesn't fit: nothing that counts against the agent. */
  unfit: z.boolean().optional(),
  effects: effects.optional(),
  output: json.optional(),
})

export type LogEntry = z.infer<typeof logEntry>
const logEntry = z.strictObject({
  at: z.string(),
  agent: z.string().optional(),
  task: z.string().optional(),
  claim: z.number().optional(),
  level: z.enum(['debug', 'info', 'warn', 'error']),
  message: z.string(),
  fields: json.optional(),
  trace: z.string().optional(),
})

/** One file of policies/agents, as the database takes it: everything decided. */
export type AgentPolicy = z.infer<typeof agentPolicy>
export const agentPolicy = z.strictObject({
  agent: z.string(),
  functions: z.array(z.string()),
  approval: z.array(z.string()),
  publish: z.array(z.string()),
  enqueue: z.array(z.string()),
  apply: z.array(z.string()),
  max_attempts: z.int(),
  timeout_ms: z.int(),
  backoff_ms: z.int(),
  backoff_cap_ms: z.int(),
  requests_per_minute: z.int().nullable(),
  concurrency: z.int().nullable(),
  tokens_per_task: z.int().nullable(),
  calls_per_task: z.int().nullable(),
  cost_per_task: decimal.nullable(),
  tokens_per_day: z.int().nullable(),
  calls_per_day: z.int().nullable(),
  cost_per_day: decimal.nullable(),
  breaker_percent: z.number(),
  breaker_samples: z.int(),
  breaker_seconds: z.int(),
})

export const fleetContract = {
  // -- fence
  fence_halt: {
    operation: 'incident.emergency_stop',
    reads: false,
    args: () => z.strictObject({ why: z.string(), grace_ms: z.int().optional() }),
    result: () =>
      z.object({
        halt: id.nullable(),
        epoch: z.number(),
        already: z.boolean(),
        fenced: z.boolean(),
        at: timestamp,
        ms: z.number(),
        waited_for: z.number(),
        terminated,
        survivors: z.array(z.string()),
        in_flight: z.number().nullable(),
      }),
  },
  fence_certificate: {
    operation: 'incident.emergency_stop',
    reads: false,
    args: () => z.strictObject({ ...write, halt: id }),
    result: () => halt,
  },
  fence_resume: {
    operation: 'incident.resume',
    reads: false,
    args: () => z.strictObject({ ...write, step: z.enum(['prepare', 'lift']), why: z.string() }),
    result: () => z.object({ epoch: z.number(), lifted: z.boolean() }),
  },
  fence_state: {
    operation: 'agents.read',
    reads: 'primary',
    args: () => z.strictObject({}),
    result: () => fence.extend({ since: timestamp.nullable(), resumed_ms_ago: resumedMsAgo, halts: z.array(halt) }),
  },
  safe_mode_on: {
    operation: 'incident.safe_mode_on',
    reads: false,
    args: () => z.strictObject({ why: z.string() }),
    result: () =>
      z.object({
        /** Null: it could not be written down who did it and when. */
        halt: id.nullable(),
        /** False: the ledger does not have it. */
        recorded: z.boolean().optional(),
        epoch: z.number(),
        fenced: z.boolean(),
        ms: z.number(),
        terminated,
        survivors: z.array(z.string()),
        workers: z.number().optional(),
        /** It was on before; then since when and by whom. */
        already: z.boolean().optional(),
        since: timestamp.optional(),
        by: z.string().optional(),
      }),
  },
  safe_mode_off: {
    operation: 'incident.safe_mode_off',
    reads: false,
    args: () => z.strictObject({ ...write, override_token_sha256: z.string(), why: z.string() }),
    result: () => z.object({ epoch: z.number() }),
  },
  guard_check: {
    operation: 'agents.read',
    reads: 'primary',
    args: () => z.strictObject({}),
    result: () =>
      z.object({
        tables: z.array(
          z.object({
            table: z.string(),
            root: z.string(),
            state: z.enum(['guarded', 'unguarded', 'not always', 'incomplete', 'unchecked', 'replicated']),
          }),
        ),
      }),
  },

  // -- workers and tasks
  worker_hello: {
    operation: 'task.work',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        name: z.string(),
        host: z.string(),
        pid: z.int(),
        agents: z.array(z.string()),
        slots: z.int(),
      }),
    result: () =>
      z.object({
        worker: id,
        slots: z.number(),
        lease_ms: z.number(),
        control,
        resumed_ms_ago: resumedMsAgo,
        /** Whether it takes `nth` and `holds` of a claim. Absent: the database is of an older release. */
        numbers_claims: z.boolean().optional(),
      }),
  },
  worker_beat: {
    operation: 'task.work',
    reads: false,
    args: () => z.strictObject({ worker: id, slots: z.int().optional(), acknowledges: z.int().optional() }),
    result: () =>
      z.object({
        slots: z.number(),
        control,
        resumed_ms_ago: resumedMsAgo,
        policies: z.string().nullable(),
      }),
  },
  worker_settings: {
    operation: 'task.work',
    reads: 'primary',
    args: () => z.strictObject({}),
    result: () => z.object({ enabled: z.boolean(), percent: decimal, environment: z.string().nullable() }),
  },
  worker_bye: {
    operation: 'task.work',
    reads: false,
    args: () => z.strictObject({ worker: id }),
    result: () => z.object({ returned: z.number() }),
  },
  tasks_enqueue: {
    operation: 'task.enqueue',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        tenant: z.string(),
        tasks: z.array(
          z.strictObject({
            function: z.string(),
            payload: json.optional(),
            key: z.string().optional(),
            delay_ms: z.int().optional(),
            /** -1 low, 0 normal, 1 high. */
            priority: z.int().optional(),
            traceparent: z.string().optional(),
          }),
        ),
      }),
    result: () => z.object({ ids: z.array(id) }),
  },
  tasks_claim: {
    operation: 'task.work',
    reads: false,
    /**
     * `nth` numbers the claims of a worker: one that comes late does nothing. `holds`, after a claim whose answer got lost: the ids
     * that this worker has, joined with commas. What else it was given goes back.
     */
    args: () => z.strictObject({ worker: id, limit: z.int(), nth: z.int().optional(), holds: z.string().optional() }),
    result: () =>
      claimAnswer.transform((answer) => ({
        control: answer.control,
        more: answer.more,
        overtaken: answer.overtaken === true,
        tasks: claimedTasks(answer),
      })),
  },
  tasks_finish: {
    operation: 'task.work',
    reads: false,
    args: () =>
      z.strictObject({
        worker: id,
        /** Completed, with nothing else to say: columns, joined with commas. */
        done: z
          .strictObject({ ids: z.string(), claims: z.string(), ms: z.string(), traces: z.string().optional() })
          .optional(),
        rest: z.array(endedTask).optional(),
        logs: z.array(logEntry).optional(),
      }),
    /** What became of `rest`, and of those of `done` that weren't simply completed. */
    result: () => z.object({ control, outcomes: z.record(z.string(), z.enum(taskOutcomes)) }),
  },
  tasks_spend: {
    operation: 'task.work',
    reads: false,
    args: () =>
      z.strictObject({
        worker: id,
        id,
        claim: z.number(),
        tokens: z.int().optional(),
        calls: z.int().optional(),
        cost: decimal.optional(),
      }),
    result: () => z.object({ tokens: wideInteger, calls: wideInteger, cost: decimal }),
  },
  tasks_step: {
    operation: 'task.work',
    reads: false,
    args: () => z.strictObject({ worker: id, id, claim: z.number(), name: z.string(), result: json }),
    result: () => z.object({ result: z.unknown() }),
  },
  tasks_reap: {
    operation: 'task.work',
    reads: false,
    args: () => z.strictObject({}),
    result: () => z.object({ reaped: z.number(), workers: z.number() }),
  },
  tasks_approve: {
    operation: 'agents.approve',
    reads: false,
    args: () => z.strictObject({ ...write, tenant: z.string(), id, approve: z.boolean(), why: z.string() }),
    result: () => z.object({ id, outcome: z.string().nullable() }),
  },
  tasks_waiting: {
    operation: 'agents.read',
    reads: 'primary',
    args: () => z.strictObject({ ...scope, limit: z.int() }),
    result: () =>
      z.object({
        tasks: z.array(
          z.object({
            id,
            tenant: z.string(),
            agent: z.string(),
            function: z.string(),
            created_at: timestamp,
            parked_at: timestamp.nullable(),
            effects: json.nullable(),
          }),
        ),
      }),
  },
  upkeep: {
    operation: 'task.work',
    reads: false,
    args: () => z.strictObject({}),
    result: () =>
      z.object({
        rolled: z.number(),
        moved: z.number(),
        dropped: z.array(z.string()),
        /** What went wrong with the monthly partitions; the rest is done. Absent: the database is of an older release. */
        failed: z.string().nullable().optional(),
        more: z.boolean(),
      }),
  },

  // -- agents
  agents_policies_load: {
    operation: 'agents.policy',
    reads: false,
    args: () => z.strictObject({ ...write, policies: z.array(agentPolicy) }),
    result: () => z.object({ loaded: z.array(z.string()), changed: z.array(z.string()), removed: z.array(z.string()) }),
  },
  agents_list: {
    operation: 'agents.read',
    reads: 'primary',
    args: () => z.strictObject({ ...scope }),
    result: () =>
      z.object({
        fence,
        limit: z.number(),
        agents: z.array(
          z.object({
            agent: z.string(),
            functions: z.array(z.string()),
            state: z.enum(agentStates),
            why: z.string(),
            since: timestamp.nullable(),
            breaker: z.enum(['closed', 'open', 'half_open']),
            breaker_until: timestamp.nullable(),
            breaker_why: z.string(),
            policy: agentPolicy,
            policy_sha256: z.string(),
            running: count,
            /** Counted to a thousand in each queue. */
            waiting: count,
            awaiting_approval: count,
          }),
        ),
        tenants: z.array(
          z.object({
            tenant: z.string().nullable(),
            state: z.enum(agentStates),
            why: z.string(),
            since: timestamp.nullable(),
          }),
        ),
        workers: z.array(
          z.object({
            worker: id,
            name: z.string(),
            host: z.string(),
            pid: z.number(),
            slots: count,
            wanted: count,
            agents: z.array(z.string()),
            lease_until: timestamp,
            started_at: timestamp,
            acknowledged_epoch: z.number().nullable(),
            holds: count,
          }),
        ),
      }),
  },
  agents_control: {
    operation: 'agents.control',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        ...scope,
        agent: z.string().optional(),
        state: z.enum(agentStates),
        why: z.string(),
      }),
    result: () => z.object({ before: z.enum(agentStates), after: z.enum(agentStates) }),
  },
  agents_settle: {
    operation: 'agents.control',
    reads: false,
    args: () => z.strictObject({ ...scope, grace_ms: z.int().optional() }),
    result: () => z.object({ settled: z.boolean(), ms: z.number(), survivors: z.array(z.string()), running: count }),
  },
  agents_runs: {
    operation: 'agents.read',
    reads: 'replica',
    args: () =>
      z.strictObject({
        ...scope,
        agent: z.string().optional(),
        task: id.optional(),
        outcome: z.string().optional(),
        limit: z.int(),
      }),
    result: () =>
      z.object({
        task: z
          .object({
            id,
            tenant: z.string(),
            agent: z.string(),
            function: z.string(),
            status: z.enum(taskStates),
            attempts: count,
            max_attempts: count,
            created_at: timestamp,
            next_run_at: timestamp,
            finished_at: timestamp.nullable(),
            class: z.enum(errorClasses).nullable(),
            error: z.string().nullable(),
            traceparent: z.string().nullable(),
            payload: json.nullable(),
            output: json.nullable(),
          })
          .nullable(),
        runs: z.array(
          z.object({
            task: id,
            claim: count,
            attempt: count,
            tenant: z.string(),
            agent: z.string(),
            function: z.string(),
            worker: id.nullable(),
            outcome: z.enum(['completed', 'awaiting_approval', 'failed', 'retried', 'lost', 'returned']),
            class: z.enum(errorClasses).nullable(),
            error: z.string().nullable(),
            started_at: timestamp.nullable(),
            finished_at: timestamp,
            ms: z.number(),
            tokens: wideInteger,
            calls: wideInteger,
            cost: decimal,
            trace_id: z.string().nullable(),
            epoch: wideInteger,
          }),
        ),
      }),
  },
  agents_logs: {
    operation: 'agents.read',
    reads: 'replica',
    args: () =>
      z.strictObject({
        ...scope,
        agent: z.string().optional(),
        task: id.optional(),
        level: z.string().optional(),
        limit: z.int(),
      }),
    result: () =>
      z.object({
        logs: z.array(
          z.object({
            at: timestamp,
            tenant: z.string().nullable(),
            agent: z.string(),
            task: id.nullable(),
            level: z.string(),
            message: z.string(),
            fields: json.nullable(),
            trace_id: z.string().nullable(),
          }),
        ),
      }),
  },
  agents_metrics: {
    operation: 'slo.read',
    reads: 'replica',
    args: () =>
      z.strictObject({
        ...scope,
        agent: z.string().optional(),
        from: timestamp.optional(),
        to: timestamp.optional(),
      }),
    result: () =>
      z.object({
        from: timestamp,
        to: timestamp,
        completed: wideInteger,
        failed: wideInteger,
        retried: wideInteger,
        lost: wideInteger,
        tokens: wideInteger,
        cost: decimal,
        samples: wideInteger,
        /** Null without samples: unknown, and never green. */
        success_percent: decimal.nullable(),
        p50_ms: decimal.nullable(),
        p95_ms: decimal.nullable(),
        /** How far a percentile may be too high: the width of its bucket. */
        error_percent: decimal,
      }),
  },

  // -- outbox
  outbox_claim: {
    operation: 'outbox.deliver',
    reads: false,
    args: () => z.strictObject({ limit: z.int(), targets: z.array(z.string()).optional() }),
    result: () =>
      z.object({
        control,
        deliveries: z.array(
          z.object({
            id,
            claim: z.number(),
            attempt: z.number(),
            event: id,
            target: z.string(),
            /** Absent: the database is of an older release. */
            lane: z.enum(['normal', 'halt']).optional(),
            kind: z.enum(targetKinds),
            config: json,
            topic: z.string(),
            /** Null: the product's own. */
            tenant: z.string().nullable(),
            payload: json,
            ordering_key: z.string().nullable(),
            created_at: timestamp,
            traceparent: z.string().nullable(),
            task: id.nullable(),
          }),
        ),
        /** Ask again now: the call's time was over before all that is ready had been looked at. Absent: an older release's. */
        more: z.boolean().optional(),
      }),
  },
  outbox_finish: {
    operation: 'outbox.deliver',
    reads: false,
    args: () =>
      z.strictObject({
        results: z.array(
          z.strictObject({
            id,
            claim: z.number(),
            outcome: z.enum(['delivered', 'retry', 'rejected', 'returned']),
            error: z.string().optional(),
            after_ms: z.int().optional(),
          }),
        ),
      }),
    result: () => z.object({ control, recorded: z.number() }),
  },
  outbox_targets_set: {
    operation: 'outbox.targets',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        targets: z.array(
          z.strictObject({
            name: z.string(),
            kind: z.enum(targetKinds),
            topics: z.array(z.string()),
            tenant: z.string().optional(),
            config: json,
            max_attempts: z.int().optional(),
          }),
        ),
      }),
    result: () => z.object({ targets: z.array(z.string()), removed: z.number() }),
  },
  outbox_list: {
    operation: 'outbox.read',
    reads: 'replica',
    args: () =>
      z.strictObject({
        ...scope,
        target: z.string().optional(),
        status: z.string().optional(),
        id: id.optional(),
        limit: z.int(),
      }),
    result: () =>
      z.object({
        deliveries: z.array(
          z.object({
            id,
            event: id,
            target: z.string(),
            /** Null: the product's own. */
            tenant: z.string().nullable(),
            topic: z.string(),
            status: z.enum(['pending', 'sending', 'delivered', 'dead']),
            attempts: count,
            lane: z.string(),
            ordering_key: z.string().nullable(),
            created_at: timestamp,
            next_at: timestamp,
            delivered_at: timestamp.nullable(),
            error: z.string().nullable(),
            task: id.nullable(),
            payload: json.nullable(),
          }),
        ),
        targets: z.array(
          z.object({
            name: z.string(),
            kind: z.enum(targetKinds),
            topics: z.array(z.string()),
            tenant: z.string().nullable(),
            max_attempts: z.number(),
            paused: z.boolean(),
            /** Counted to ten thousand. */
            waiting: count,
          }),
        ),
      }),
  },
  outbox_retry: {
    operation: 'outbox.retry',
    reads: false,
    args: () => z.strictObject({ ...write, ...scope, ids: z.array(id), why: z.string() }),
    result: () => z.object({ retried: z.number() }),
  },
  outbox_lag: {
    operation: 'outbox.read',
    reads: 'replica',
    args: () => z.strictObject({ ...scope, minutes: z.int().optional() }),
    result: () =>
      z.object({
        since: timestamp,
        samples: wideInteger,
        waiting: wideInteger,
        p50_ms: decimal.nullable(),
        p95_ms: decimal.nullable(),
        avg_ms: decimal.nullable(),
        oldest_waiting_ms: decimal.nullable(),
        dead: wideInteger,
      }),
  },

  // -- dead letters
  dlq_list: {
    operation: 'dlq.read',
    reads: 'replica',
    args: () =>
      z.strictObject({
        ...scope,
        class: z.string().optional(),
        status: z.string().optional(),
        id: id.optional(),
        limit: z.int(),
      }),
    result: () =>
      z.object({
        letters: z.array(
          z.object({
            id,
            task: id,
            tenant: z.string(),
            agent: z.string(),
            function: z.string(),
            class: z.enum(errorClasses),
            error: z.string().nullable(),
            attempts: count,
            created_at: timestamp,
            status: z.enum(['open', 'replaying', 'replayed', 'discarded']),
            snooze_until: timestamp.nullable(),
            replays: count,
            replay_task: id.nullable(),
            trace_id: z.string().nullable(),
            bytes: count,
            payload: json.nullable(),
          }),
        ),
      }),
  },
  dlq_stats: {
    operation: 'dlq.read',
    reads: 'replica',
    args: () => z.strictObject({ ...scope }),
    result: () =>
      z.object({
        counts: z.array(
          z.object({
            tenant: z.string(),
            class: z.enum(errorClasses),
            status: z.string(),
            letters: wideInteger,
            oldest: timestamp,
          }),
        ),
        replays: z.array(
          z.object({
            run: id,
            tenant: z.string(),
            by: z.string(),
            at: timestamp,
            plan: z.string(),
            items: count,
            tried: count,
            succeeded: count,
            failed: count,
            withdrawn: count,
            finished_at: timestamp.nullable(),
            stopped_why: z.string().nullable(),
          }),
        ),
      }),
  },
  dlq_plan: {
    operation: 'dlq.dry_run',
    reads: 'primary',
    args: () =>
      z.strictObject({
        tenant: z.string(),
        ids: z.array(id).optional(),
        class: z.enum(errorClasses).optional(),
        limit: z.int().optional(),
      }),
    result: () =>
      z.object({
        tenant: z.string(),
        /** Names exactly these items in this state. */
        plan: z.string(),
        bytes: wideInteger,
        /** Why it may not be replayed now. */
        barred: z.string().nullable(),
        items: z.array(
          z.object({
            id,
            task: id,
            agent: z.string(),
            function: z.string(),
            class: z.enum(errorClasses),
            bytes: count,
            replays: count,
          }),
        ),
        skipped: z.array(z.object({ id, why: z.string() })),
      }),
  },
  dlq_replay: {
    operation: 'dlq.replay',
    reads: false,
    args: () => z.strictObject({ ...write, tenant: z.string(), ids: z.array(id), plan: z.string(), why: z.string() }),
    result: () => z.object({ run: id, items: z.array(z.object({ id, task: id })) }),
  },
  dlq_dispose: {
    operation: 'dlq.dispose',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        tenant: z.string(),
        ids: z.array(id),
        action: z.enum(['snooze', 'discard']),
        until: timestamp.optional(),
        why: z.string(),
      }),
    result: () => z.object({ changed: z.number() }),
  },
} as const satisfies Record<string, Entry>
