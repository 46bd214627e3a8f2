import * as z from 'zod'
import { halt } from './fleet.ts'
import { decimal, json, scope, timestamp, wideInteger, write, type Entry } from './values.ts'

/** Incidents: the levers, the life cycle, the halt's certificates. */

export const priorities = ['P1', 'P2', 'P3', 'P4'] as const
export type Priority = (typeof priorities)[number]
export const incidentStates = ['OPEN', 'AUTO_HEALING', 'ESCALATED', 'RESOLVED', 'CLOSED'] as const

const id = wideInteger
const fence = z.object({ halted: z.boolean(), epoch: z.number(), safe_mode: z.boolean() })
/** The incident whose resume is under way: not all slots are back. */
const resuming = id.nullable().default(null)

export type Incident = z.infer<typeof incident>
const incident = z.object({
  id,
  priority: z.enum(priorities),
  status: z.enum(incidentStates),
  type: z.string(),
  tenant: z.string().nullable(),
  title: z.string(),
  opened_at: timestamp,
  opened_by: z.string(),
  occurrences: wideInteger,
  last_seen_at: timestamp,
  attempts: z.number(),
  response_due: timestamp,
  acted_at: timestamp.nullable(),
  late_at: timestamp.nullable(),
  acked_at: timestamp.nullable(),
  acked_by: z.string().nullable(),
  escalated_at: timestamp.nullable(),
  resolved_at: timestamp.nullable(),
  resolved_by: z.string().nullable(),
  resolution: z.enum(['auto_healed', 'resolved', 'resumed']).nullable(),
  closed_at: timestamp.nullable(),
})

const event = z.object({ id, at: timestamp, kind: z.string(), who: z.string(), text: z.string() })

export type LeverChange = z.infer<typeof change>
const change = z.object({
  key: z.string(),
  scope: z.string(),
  before: json.nullable(),
  after: json.nullable(),
  /** It was being rolled out, and stood there. */
  before_stage: z.string().nullable(),
})
const kept = z.object({ key: z.string(), scope: z.string(), value: json.nullable(), why: z.string() })
const lever = z.object({
  id,
  kind: z.enum(['soft_degrade', 'rollback']),
  tenant: z.string().nullable(),
  at: timestamp,
  by: z.string(),
  undone_at: timestamp.nullable(),
  undone_by: z.string().nullable(),
  changes: z.array(change),
  kept: z.array(kept),
})
const rollback = z.object({
  moment: timestamp.nullable(),
  /** By what it was chosen: the recorded posture, or, where none was ever green, the required flags alone. */
  basis: z.enum(['posture', 'flags', 'asked']).nullable().default(null),
  source: z.string(),
  plan: z.string().nullable(),
  changes: z.array(z.object({ key: z.string(), scope: z.string(), before: json.nullable(), after: json.nullable() })),
  /** Left as they are: a soft degrade that is on holds them. */
  held: z.array(z.object({ key: z.string(), scope: z.string(), incident: id })),
  workers: z.number(),
})

/** What a certificate says of the halt itself. */
export type HaltFacts = z.infer<typeof halt>

export const incidentsContract = {
  // -- the button
  incident_press: {
    operation: 'incident.emergency_stop',
    reads: false,
    args: () => z.strictObject({ ...write, halt: id.optional(), why: z.string().optional() }),
    result: () =>
      z.object({
        incident: id,
        joined: z.boolean(),
        priority: z.enum(priorities),
        /** Of the press that halted the fleet. */
        since: timestamp,
        by: z.string(),
        why: z.string(),
        epoch: z.number(),
        pressed_by: z.string(),
        environment: z.string().nullable(),
        database_id: z.string().nullable(),
        /** Why nobody hears of it now; null: somebody should. */
        untold: z.string().nullable().default(null),
        /** Of the halt, as incident_halt tells them. */
        facts: halt.nullable().default(null),
      }),
  },
  incident_snapshot: {
    operation: 'incident.emergency_stop',
    reads: false,
    args: () => z.strictObject({ ...write, id }),
    result: () => z.object({ taken: z.boolean() }),
  },
  incident_halt: {
    operation: 'incident.emergency_stop',
    reads: 'primary',
    args: () => z.strictObject({ halt: id }),
    result: () => halt,
  },
  incident_certified: {
    operation: 'incident.emergency_stop',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        halt: id,
        /** Canonical JSON: the bytes that are signed. */
        certificate: z.string(),
        fingerprint: z.string().optional(),
        signature: z.string().optional(),
      }),
    result: () => z.object({ incident: id, halt: id, sha256: z.string() }),
  },
  incident_certificates: {
    operation: 'incident.certify',
    reads: 'primary',
    args: () => z.strictObject({ id }),
    result: () =>
      z.object({
        incident: id,
        type: z.string(),
        database_id: z.string().nullable(),
        environment: z.string().nullable(),
        halts: z.array(
          z.object({
            facts: halt,
            certificate: z.string().nullable(),
            signed_by: z.array(z.object({ fingerprint: z.string(), signature: z.string() })),
          }),
        ),
      }),
  },

  // -- the other levers
  incident_soft_degrade: {
    operation: 'incident.soft_degrade',
    reads: false,
    args: () => z.strictObject({ ...write, ...scope, why: z.string().optional() }),
    result: () =>
      z.object({
        incident: id,
        joined: z.boolean(),
        /** Null: there was nothing left to change. */
        lever: id.nullable(),
        slots_before: z.number(),
        slots_after: z.number(),
        workers: z.number(),
        changes: z.array(change),
      }),
  },
  incident_rollback_plan: {
    operation: 'incident.rollback',
    reads: 'primary',
    args: () => z.strictObject({ to: z.string().optional() }),
    result: () => rollback,
  },
  /** An alarm asks for it: the incident is there whether or not something is rolled back. */
  incident_rollback_wanted: {
    operation: 'incident.rollback',
    reads: false,
    args: () => z.strictObject({ ...write, priority: z.enum(priorities), why: z.string().optional() }),
    result: () => z.object({ joined: z.boolean(), incident }),
  },
  incident_rollback: {
    operation: 'incident.rollback',
    reads: false,
    args: () => z.strictObject({ ...write, to: z.string().optional(), plan: z.string(), why: z.string().optional() }),
    result: () =>
      rollback.extend({
        incident: id.nullable(),
        lever: id.nullable(),
        /** The state of this moment is the one before it. */
        at: timestamp.nullable(),
      }),
  },
  incident_resume: {
    operation: 'incident.resume',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        id,
        step: z.enum(['approve', 'prepare', 'lift', 'slots']),
        percent: z.int().optional(),
        why: z.string().optional(),
      }),
    result: () =>
      z.object({
        step: z.enum(['approve', 'prepare', 'lift', 'slots']),
        halted: z.boolean(),
        percent: z.number(),
        epoch: z.number(),
        workers: z.number(),
        undone: z.array(change),
        kept: z.array(kept),
      }),
  },
  incident_health: {
    operation: 'incident.resume',
    reads: 'primary',
    args: () => z.strictObject({ id }),
    result: () =>
      z.object({
        since: timestamp,
        percent: z.number(),
        halted: z.boolean(),
        good: wideInteger,
        bad: wideInteger,
        waiting: wideInteger,
        workers: z.number(),
        state: z.enum(['green', 'red', 'unknown', 'idle']),
        why: z.string(),
      }),
  },

  // -- the life cycle
  incident_open: {
    operation: 'incident.open',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        ...scope,
        priority: z.enum(priorities),
        type: z.string().optional(),
        title: z.string(),
        /** Symptoms of the same key join the incident that is open. */
        key: z.string().optional(),
      }),
    result: () => z.object({ joined: z.boolean(), incident }),
  },
  incident_list: {
    operation: 'incident.read',
    reads: 'primary',
    args: () =>
      z.strictObject({
        ...scope,
        status: z.enum(incidentStates).optional(),
        all: z.boolean().optional(),
        limit: z.int().optional(),
      }),
    result: () =>
      z.object({
        fence,
        slots_percent: z.number(),
        resuming,
        incidents: z.array(incident),
        /** So many lesser ones didn't fit. */
        more: z.int(),
      }),
  },
  incident_show: {
    operation: 'incident.read',
    reads: 'primary',
    args: () => z.strictObject({ id, limit: z.int().optional() }),
    result: () =>
      z.object({
        incident,
        fence,
        slots_percent: z.number(),
        resuming,
        detail: json.nullable(),
        events: z.array(event),
        snapshot: z.record(z.string(), json).nullable(),
        halts: z.array(halt),
        certificates: z.array(
          z.object({ halt: id, sha256: z.string(), at: timestamp, signed_by: z.array(z.string()) }),
        ),
        levers: z.array(lever),
      }),
  },
  incident_work: {
    operation: 'incident.work',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        ...scope,
        id,
        action: z.enum(['ack', 'note', 'resolve', 'close']),
        text: z.string().optional(),
      }),
    result: () => z.object({ changed: z.boolean(), incident }),
  },
  incident_times: {
    operation: 'incident.read',
    reads: 'primary',
    args: () => z.strictObject({ ...scope, from: z.string().optional(), to: z.string().optional() }),
    result: () =>
      z.object({
        from: timestamp,
        to: timestamp,
        opened: wideInteger,
        acted: wideInteger,
        resolved: wideInteger,
        late: wideInteger,
        /** Null: nothing to measure. */
        mtta_seconds: decimal.nullable(),
        mttr_seconds: decimal.nullable(),
      }),
  },
  incident_impact: {
    operation: 'incident.read',
    reads: 'primary',
    args: () => z.strictObject({ id }),
    result: () =>
      z.object({
        from: timestamp,
        to: timestamp,
        completed: wideInteger,
        failed: wideInteger,
        retried: wideInteger,
        cost: decimal,
        /** Of runs that came to nothing. */
        wasted: decimal,
        tenants: wideInteger,
        dead_letters: wideInteger,
        halted_seconds: decimal,
      }),
  },
  incident_cycle: {
    operation: 'cadence.run',
    reads: false,
    args: () => z.strictObject({ ...write }),
    result: () => z.object({ late: z.array(id), escalated: z.array(id), closed: z.array(id), open: z.number() }),
  },
  /** For incidents of `tms incident test` only. */
  incident_rehearse: {
    operation: 'cadence.run',
    reads: false,
    args: () => z.strictObject({ ...write, id, step: z.enum(['late', 'attempt', 'turn', 'heal', 'look']) }),
    result: () =>
      z.object({
        incident,
        told: z.array(z.object({ topic: z.string(), targets: z.array(z.string()) })),
      }),
  },
} as const satisfies Record<string, Entry>
