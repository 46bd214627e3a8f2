import * as z from 'zod'
import { decimal, timestamp, wideInteger, write, type Entry } from './values.ts'

/** Checks of tms's own tables: the rows that each finds come from sql/functions/55_invariants.sql. */
export const ownChecks = [
  'tasks_past_lease',
  'tasks_without_policy',
  'outbox_past_slo',
  'ledger_unsealed',
  'flags_outside_catalogue',
  'effects_without_task',
  'replay_unbalanced',
  'deliveries_without_event',
  'runs_without_task',
  'slots_beyond_limit',
  'letters_without_task',
] as const

export const priorities = ['P1', 'P2', 'P3', 'P4'] as const
const outcome = z.enum(['holds', 'violated', 'unknown'])

/** What a policy says, apart from its SQL, which stands in functions of schema tms_invariants. */
export type LoadedInvariant = z.infer<typeof loadedInvariant>
const loadedInvariant = z.strictObject({
  invariant: z.string(),
  kind: z.enum(['own', 'query', 'broken']),
  priority: z.enum(priorities),
  title: z.string(),
  owner: z.string(),
  check: z.enum(ownChecks).nullable(),
  every_ms: z.int(),
  timeout_ms: z.int(),
  escalate: z.enum(['at_once', 'later']),
  reads: z.array(z.string()),
  writes: z.array(z.string()),
  show: z.array(z.string()),
  rows_per_scan: z.int().nullable(),
  rows_per_violation: z.int().nullable(),
  query_sha256: z.string().nullable(),
  correction_sha256: z.string().nullable(),
  problem: z.string().nullable(),
})

const checked = z.object({
  invariant: z.string(),
  priority: z.enum(priorities),
  outcome,
  why: z.string(),
  /** A thousand at most; null where none were counted or the caller may not see them. */
  violations: z.number().nullable(),
  more: z.boolean(),
  checked_at: timestamp.nullable(),
  ms: z.number().nullable(),
  correctable: z.boolean(),
})

const drift = z.object({
  at: timestamp,
  /** Null: something could not be checked. It lies between the other two then. */
  score: decimal.nullable(),
  lowest: decimal.nullable(),
  highest: decimal.nullable(),
  detail: z.object({
    invariants: z.number().optional(),
    unknown: z.array(z.string()).optional(),
    violated: z.record(z.string(), z.number().nullable()).optional(),
  }),
})

export const invariantsContract = {
  /** One invariant. What took another scan's place says so: `by` is another. */
  invariants_scan: {
    operation: 'invariants.scan',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        invariant: z.string(),
        correct: z.boolean().optional(),
        since: timestamp.optional(),
      }),
    result: () =>
      z.union([
        checked.extend({
          by: z.enum(['this', 'another']),
          incident: wideInteger.nullable().optional(),
          correction: z
            .object({
              invariant: z.string(),
              before: z.number(),
              touched: z.number(),
              allowed: z.number().nullable(),
              after: z.number(),
              why: z.string(),
            })
            .nullable()
            .optional(),
        }),
        z.object({ invariant: z.string(), by: z.literal('another'), outcome: z.null(), why: z.string() }),
      ]),
  },
  invariants_score: {
    operation: 'invariants.scan',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        /** Checks that gave no answer. */
        missed: z.array(z.strictObject({ invariant: z.string(), why: z.string() })),
      }),
    result: () => drift,
  },
  invariants_load: {
    operation: 'invariants.load',
    reads: false,
    /** What is neither listed nor to be removed stays as it is. */
    args: () =>
      z.strictObject({ ...write, invariants: z.array(loadedInvariant), remove: z.array(z.string()).optional() }),
    result: () => z.object({ loaded: z.array(z.string()), changed: z.array(z.string()), removed: z.array(z.string()) }),
  },
  invariants_list: {
    operation: 'incident.read',
    reads: 'primary',
    args: () => z.strictObject({ invariant: z.string().optional() }),
    result: () =>
      z.object({
        now: timestamp,
        drift: drift.nullable(),
        invariants: z.array(
          checked.extend({
            title: z.string(),
            owner: z.string(),
            kind: z.enum(['own', 'query', 'broken']),
            check: z.string().nullable(),
            every_ms: wideInteger,
            timeout_ms: z.number(),
            escalate: z.enum(['at_once', 'later']),
            since: timestamp.nullable(),
            reads: z.array(z.string()),
            writes: z.array(z.string()),
            show: z.array(z.string()),
            rows_per_scan: z.number().nullable(),
            rows_per_violation: z.number().nullable(),
            query_sha256: z.string().nullable(),
            correction_sha256: z.string().nullable(),
            /** What was loaded is what is there. */
            fit: z.boolean(),
            loaded_at: timestamp,
            loaded_by: z.string(),
            query: z.string().nullable(),
            correction: z.string().nullable(),
            sample: z.array(z.record(z.string(), z.json())).nullable(),
            incident: wideInteger.nullable(),
          }),
        ),
      }),
  },
  invariants_history: {
    operation: 'incident.read',
    reads: 'primary',
    args: () => z.strictObject({ invariant: z.string().optional(), limit: z.int() }),
    result: () =>
      z.object({
        scores: z.array(drift),
        violations: z.array(
          z.object({
            invariant: z.string(),
            priority: z.enum(priorities),
            first_seen: timestamp,
            last_seen: timestamp,
            cleared_at: timestamp.nullable(),
            cleared_why: z.string().nullable(),
            scans: z.number(),
            most: z.number(),
            more: z.boolean(),
            touched: z.number(),
          }),
        ),
      }),
  },
} as const satisfies Record<string, Entry>
