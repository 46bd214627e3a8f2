import * as z from 'zod'
import { timestamp, write, type Entry } from './values.ts'

const day = z.string().regex(/^\d{4}-\d\d-\d\d$/)
const sha256 = z.string().regex(/^[0-9a-f]{64}$/)

/** What expires, and what is left of it. */
export const retentionContract = {
  evidence_expired: {
    operation: 'evidence.prune',
    reads: 'primary',
    /** Of these days, those older than `keep` days. */
    args: () => z.strictObject({ keep: z.int(), days: z.array(day) }),
    result: () =>
      z.object({
        now: timestamp,
        /** Days before this one have expired. */
        before: day,
        newest_final: day.nullable(),
        days: z.array(
          z.object({
            day,
            /** Null: this database made no final pack of that day. */
            manifest_sha256: sha256.nullable(),
            sums_sha256: sha256.nullable(),
            checkpoint: z.string().nullable(),
            previous_manifest_sha256: sha256.nullable(),
            /** What was stored by a run before. */
            tombstone: z.string().nullable(),
          }),
        ),
      }),
  },
  evidence_tombstone: {
    operation: 'evidence.prune',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        keep: z.int(),
        day,
        manifest_sha256: sha256,
        sums_sha256: sha256,
        tombstone: z.string(),
      }),
    /** The bytes that count; not `stored`: somebody else's. */
    result: () => z.object({ tombstone: z.string(), stored: z.boolean() }),
  },
} as const satisfies Record<string, Entry>
