import * as z from 'zod'
import { count, day, digest, instant, tenant, whole } from './values.ts'

export const auditDigestFile = z
  .strictObject({
    type: z.literal('tms-audit-digest-v1'),
    day,
    as_of: instant,
    ledger: z
      .strictObject({
        origin: z.string(),
        from_seq: count,
        tree_size: count,
        root_before: z.string().describe('root of the Merkle tree of the rows before from_seq, base64'),
        root_after: z.string().describe('root of the Merkle tree of the rows before tree_size, base64'),
      })
      .describe("the day's rows: from_seq <= seq < tree_size. The two roots leave no choice which rows those are"),
    rows: whole,
    critical: whole.describe('those that are more than routine'),
    actions: count.describe('how many different ones there are'),
    counts: z.array(z.strictObject({ action: z.string(), outcome: z.string(), count: whole })),
    listed: z
      .array(
        z.strictObject({
          seq: whole,
          at: instant,
          action: z.string(),
          outcome: z.string(),
          role: z.string(),
          who: z
            .string()
            .describe('a service account by name; a person by a word that is the same for the same person'),
          tenant,
          subject: z.string().nullable().describe('null where it could be a person'),
          row_hash: digest,
          body_sha256: digest,
          trace_id: z.string().nullable(),
        }),
      )
      .describe('the gravest two hundred at most: levers first, then rights, then changes, then refusals'),
  })
  .describe('Critical actions of the day. Names and reasons stay in the ledger; a row hash says which row it is.')

export type AuditDigestFile = z.infer<typeof auditDigestFile>
