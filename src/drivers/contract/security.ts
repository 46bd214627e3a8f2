import * as z from 'zod'
import { targetKinds } from './fleet.ts'
import { json, scope, timestamp, wideInteger, write, type Entry } from './values.ts'

/** Attempts that failed, who is shut out, and whether notifications arrive. */

export const eventKinds = ['signature', 'nonce', 'role', 'rate', 'blocked', 'identity', 'token'] as const
const count = z.int().min(0)

export const securityContract = {
  /** What a door saw since it last said so. Without a request id: a lost answer counts some attempts twice and does no harm. */
  door_report: {
    operation: 'webhook.in',
    reads: false,
    args: () =>
      z.strictObject({
        events: z
          .array(
            z.strictObject({
              kind: z.enum(['signature', 'blocked']),
              address: z.string().min(1).max(64),
              key_id: z.string().max(64),
              reason: z.string(),
              count: z.int().min(1),
            }),
          )
          .max(500),
      }),
    /** Whom to keep out: without a key, whoever at the address names none that exists. */
    result: () =>
      z.object({
        counted: count,
        blocks: z.array(z.object({ address: z.string(), key_id: z.string().nullable(), seconds: count })),
      }),
  },
  security_events: {
    operation: 'audit.read',
    reads: 'replica',
    args: () =>
      z.strictObject({
        ...scope,
        kind: z.enum(eventKinds).optional(),
        minutes: z.int().optional(),
        limit: z.int(),
      }),
    result: () =>
      z.object({
        since: timestamp,
        totals: z.record(z.string(), wideInteger),
        events: z.array(
          z.object({
            minute: timestamp,
            kind: z.enum(eventKinds),
            count: wideInteger,
            reason: z.string(),
            address: z.string().nullable(),
            key: z.string().nullable(),
            who: z.string().nullable(),
            function: z.string().nullable(),
            tenant: z.string().nullable(),
          }),
        ),
      }),
  },
  security_blocks: {
    operation: 'audit.read',
    reads: 'primary',
    args: () => z.strictObject({ all: z.boolean().optional(), limit: z.int() }),
    result: () =>
      z.object({
        /** False: blocks belong to no tenant, and the caller sees tenants only. */
        all_visible: z.boolean(),
        blocks: z.array(
          z.object({
            kind: z.enum(['address', 'key', 'principal']),
            source: z.string().nullable(),
            key: z.string().nullable(),
            cause: z.string(),
            count: wideInteger,
            times: count,
            since: timestamp,
            until: timestamp,
            active: z.boolean(),
            lifted_at: timestamp.nullable(),
            lifted_by: z.string().nullable(),
          }),
        ),
      }),
  },
  security_unblock: {
    operation: 'accounts.manage',
    reads: false,
    args: () => z.strictObject({ ...write, source: z.string(), why: z.string() }),
    result: () => z.object({ source: z.string(), lifted: count }),
  },
  security_ledger_broken: {
    operation: 'incident.open',
    reads: false,
    args: () => z.strictObject({ ...write, detail: z.record(z.string(), json) }),
    result: () => z.object({ incident: wideInteger }),
  },
  notify_status: {
    operation: 'outbox.read',
    reads: 'primary',
    args: () => z.strictObject({}),
    result: () =>
      z.object({
        /** Why nobody would hear of an incident now; null: somebody should. */
        untold: z.string().nullable().default(null),
        targets: z.array(
          z.object({
            name: z.string(),
            kind: z.enum(targetKinds),
            /** It hears of incidents of the whole fleet. */
            tells: z.boolean(),
            paused: z.boolean(),
            /** Counted to ten thousand and a little more. */
            waiting: count,
            /** Died after the last one that arrived, and what paged for an incident that is still open. */
            lost: count,
            oldest_seconds: z.int().nullable(),
            delivered_at: timestamp.nullable(),
            error: z.string().nullable(),
            failing: z.string().nullable(),
          }),
        ),
      }),
  },
  notify_watch: {
    operation: 'slo.act',
    reads: false,
    args: () => z.strictObject({ ...write }),
    result: () => z.object({ failing: z.array(z.object({ target: z.string(), why: z.string() })), cleared: count }),
  },
  notify_target: {
    operation: 'outbox.targets',
    reads: 'primary',
    args: () => z.strictObject({ target: z.string() }),
    result: () => z.object({ name: z.string(), kind: z.enum(targetKinds), config: json, topics: z.array(z.string()) }),
  },
} as const satisfies Record<string, Entry>
