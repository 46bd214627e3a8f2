import * as z from 'zod'
import { decimal, json, scope, timestamp, wideInteger, write, type Entry } from './values.ts'

export const postureStates = ['green', 'red', 'unknown'] as const
export const grades = ['A', 'B', 'C', 'D', 'F'] as const
export const consequences = ['throttle', 'freeze', 'quarantine', 'pause_replay', 'safe_mode'] as const
export const probeKinds = ['database', 'door', 'fleet'] as const

const count = z.int()

const uptime = z.object({
  /** Of the span; those nobody probed are `unknown` and neither up nor down. */
  minutes: count,
  up: count,
  down: count,
  unknown: count,
  last_down_at: timestamp.nullable(),
  kinds: z.array(
    z.object({
      kind: z.enum(probeKinds),
      up: count,
      down: count,
      slowest_ms: count.nullable(),
      why: z.string(),
    }),
  ),
})

const score = z.strictObject({ low: decimal, high: decimal, grade: z.enum(grades) })

const change = z.object({
  check: z.string(),
  from: z.enum(postureStates).nullable(),
  to: z.enum(postureStates),
  observed: z.string().nullable(),
  comparison: z.string(),
  limit: z.string(),
})

export const postureContract = {
  posture_facts: {
    operation: 'slo.read',
    reads: 'primary',
    /** `seconds` long and up to now, or from and to. */
    args: () =>
      z.strictObject({
        ...scope,
        from: timestamp.optional(),
        to: timestamp.optional(),
        seconds: count.optional(),
      }),
    result: () =>
      z.object({
        scope: z.string(),
        /** Whether this is all of it; what belongs to the fleet as a whole is null otherwise. */
        fleet: z.boolean(),
        from: timestamp,
        to: timestamp,
        now: timestamp,
        installed_at: timestamp.nullable(),
        fence: z.object({ halted: z.boolean(), epoch: count, safe_mode: z.boolean() }),
        tasks: z.object({
          /** Quarter hours: the window widened to whole ones. */
          from: timestamp,
          to: timestamp,
          completed: wideInteger,
          failed: wideInteger,
          retried: wideInteger,
          lost: wideInteger,
          tokens: wideInteger,
          calls: wideInteger,
          cost: decimal,
          samples: wideInteger,
          success_percent: decimal.nullable(),
          p50_ms: decimal.nullable(),
          /** It lies above `p95_above_ms` and is at most this. */
          p95_ms: decimal.nullable(),
          p95_above_ms: decimal.nullable(),
          error_percent: decimal,
          /** Attempts, which is what latency is of. */
          timed: wideInteger,
          traced: wideInteger,
          traceable: wideInteger,
          agents: z.array(z.object({ agent: z.string(), completed: wideInteger, failed: wideInteger })),
          dead_letters: wideInteger,
          quarantined: wideInteger,
        }),
        outbox: z.object({
          since: timestamp,
          samples: wideInteger,
          waiting: wideInteger,
          p50_ms: decimal.nullable(),
          p95_ms: decimal.nullable(),
          avg_ms: decimal.nullable(),
          oldest_waiting_ms: decimal.nullable(),
          dead: wideInteger,
        }),
        letters: z.object({ open: wideInteger, oldest: timestamp.nullable() }),
        replays: z.object({
          runs: wideInteger,
          tried: wideInteger,
          failed: wideInteger,
          most_items: count,
          most_bytes: wideInteger,
          most_in_a_day: count,
        }),
        /** The loosest that applies anywhere in the scope. */
        budgets: z.object({
          replay_items: decimal,
          replay_bytes: decimal,
          replay_stop_percent: decimal,
          replays_per_five_minutes: decimal,
        }),
        concurrency: z.object({ limit: count, slots: count, workers: count, running: count }).nullable(),
        flags: z
          .object({
            required: count,
            checked: count,
            findings: z.array(
              z.object({ key: z.string(), scope: z.string(), observed: json, expected: z.string(), why: z.string() }),
            ),
          })
          .nullable(),
        uptime,
        incidents: z.object({ p1: count, p2: count, p3: count, p4: count }),
        drift: z.object({ score: decimal, at: timestamp }).nullable(),
        /** The newest valid one. Null: none is recorded. */
        backup: z.object({ at: timestamp }).nullable(),
        unsealed_seconds: decimal.nullable(),
        /** The spans of error-budget burn, shortest first; they end where the window ends. */
        burn: z.array(z.object({ seconds: count, completed: wideInteger, failed: wideInteger, uptime })),
      }),
  },
  /** What was up counts now; only what was down may be told later, with its age. `fleet` is looked up, not told. */
  probe_record: {
    operation: 'slo.act',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        probes: z.array(
          z.strictObject({
            kind: z.enum(['database', 'door']),
            up: z.boolean(),
            ms: count.optional(),
            /** The code of an error. */
            why: z.string().optional(),
            ago_ms: count.optional(),
          }),
        ),
      }),
    result: () => z.object({ recorded: count, fleet: z.boolean().nullable() }),
  },
  posture_record: {
    operation: 'slo.act',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        /** `now` of the facts. */
        as_of: timestamp,
        verdict: z.enum(postureStates),
        score,
        checks: z.array(
          z.strictObject({
            name: z.string(),
            state: z.enum(postureStates),
            observed: z.string().nullable(),
            comparison: z.string(),
            limit: z.string(),
          }),
        ),
      }),
    /** Not recorded: newer facts were judged already. */
    result: () =>
      z.object({
        recorded: z.boolean(),
        announced: z.boolean(),
        id: wideInteger.nullable(),
        changes: z.array(change),
      }),
  },
  posture_state: {
    operation: 'slo.read',
    reads: 'primary',
    args: () => z.strictObject({ limit: count }),
    result: () =>
      z.object({
        state: z
          .object({
            id: wideInteger,
            since: timestamp,
            as_of: timestamp,
            seen_at: timestamp,
            verdict: z.enum(postureStates),
            score,
          })
          .nullable(),
        checks: z.array(
          z.object({
            check: z.string(),
            state: z.enum(postureStates),
            since: timestamp,
            red_since: timestamp.nullable(),
          }),
        ),
        changes: z.array(
          z.object({ id: wideInteger, at: timestamp, verdict: z.enum(postureStates), changes: z.array(change) }),
        ),
      }),
  },
  posture_act: {
    operation: 'slo.act',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        action: z.enum(consequences),
        /** The breached one: it must be on record. */
        check: z.string(),
        agent: z.string().optional(),
        report_only: z.boolean().optional(),
        /** For throttle: to this share of what may run now, and never below `least`. */
        percent: count.optional(),
        least: count.optional(),
        observed: z.string(),
        limit: z.string(),
        samples: z.string().optional(),
      }),
    result: () =>
      z.object({
        acted: z.enum(['done', 'reported', 'reported already', 'in force', 'undone', 'nothing to do']),
        id: wideInteger.nullable(),
        subject: z.string(),
        before: json,
        after: json,
      }),
  },
  /** Starting again is a person's, so the operation is one that no machine has. */
  posture_undo: {
    operation: 'release.unfreeze',
    reads: false,
    args: () => z.strictObject({ ...write, id: wideInteger, why: z.string() }),
    result: () =>
      z.object({
        id: wideInteger,
        action: z.enum(consequences),
        subject: z.string(),
        restored: count,
        /** What somebody changed since: it stays as that person left it. */
        left: z.array(z.string()),
      }),
  },
  posture_actions: {
    operation: 'slo.read',
    reads: 'primary',
    args: () => z.strictObject({ limit: count, id: wideInteger.optional() }),
    result: () =>
      z.object({
        actions: z.array(
          z.object({
            id: wideInteger,
            action: z.enum(consequences),
            subject: z.string(),
            check: z.string(),
            breach_since: timestamp,
            at: timestamp,
            by: z.string(),
            observed: z.string(),
            limit: z.string(),
            samples: z.string(),
            before: json,
            after: json,
            state: z.enum(['in force', 'undone', 'reported']),
            undone_at: timestamp.nullable(),
            undone_by: z.string().nullable(),
            undone_why: z.string().nullable(),
          }),
        ),
      }),
  },
} as const satisfies Record<string, Entry>
