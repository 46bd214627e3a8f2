import * as z from 'zod'
import { count, day, decimal, instant, tenant, verdict, whole, window } from './values.ts'

export const check = z.strictObject({
  name: z.string(),
  group: z.string(),
  observed: z.string().nullable().describe('what was measured; null: nothing was'),
  unit: z.string(),
  comparison: z.enum(['at least', 'at most', 'below']),
  limit: decimal,
  samples: count,
  window: z.union([window, z.literal('now')]).describe('now: at as_of'),
  source: z.string(),
  state: verdict.describe('unknown where there are no samples: never green by default'),
  why: z.string().nullable(),
  counts: z.boolean().describe('false: when it is unknown the verdict does not care'),
})
export type Check = z.infer<typeof check>

export const sloSnapshotFile = z
  .strictObject({
    type: z.literal('tms-slo-snapshot-v1'),
    day,
    window,
    as_of: instant.describe('when these facts were gathered'),
    verdict: verdict.describe('red when one check is red; else unknown when one is unknown; else green'),
    ground: z
      .strictObject({
        state: z.enum(['measured', 'idle', 'young', 'unwatched']),
        why: z.string(),
      })
      .describe(
        'what lies behind the numbers: work, no work, a day that the database did not see whole, or too few probes',
      ),
    health: z
      .strictObject({
        low: decimal.describe('health score if everything unknown were bad'),
        high: decimal.describe('health score if everything unknown were good'),
        grade: z.string(),
        components: z.array(
          z.strictObject({
            name: z.string(),
            low: decimal,
            high: decimal,
            of: decimal,
            known: z.boolean(),
            why: z.string(),
          }),
        ),
      })
      .nullable(),
    checks: z.array(check),
    runs: z.strictObject({
      completed: whole,
      failed: whole,
      retried: whole,
      lost: whole,
      tokens: whole,
      calls: whole,
      cost: decimal,
      samples: whole,
      success_percent: decimal.nullable(),
      p50_ms: decimal.nullable(),
      p95_ms: decimal.nullable().describe("from the day's summed buckets, never from p95s"),
      error_percent: decimal.describe("by how much a percentile may be too high: its bucket's width"),
    }),
    quarters: z
      .array(
        z.strictObject({
          at: instant,
          completed: whole,
          failed: whole,
          success_percent: decimal.nullable(),
          p95_ms: decimal.nullable(),
        }),
      )
      .describe('by quarter of an hour; quarters without runs are left out'),
    queue: z
      .array(z.strictObject({ at: instant, waiting: whole, running: whole, awaiting_approval: whole }))
      .describe('one sample for each quarter of an hour in which one was taken'),
    alerts: z
      .strictObject({
        count,
        listed: z.array(
          z.strictObject({
            id: whole,
            priority: z.string(),
            status: z.enum(['OPEN', 'ENDED']),
            type: z.string(),
            tenant,
            title: z.string().describe('what people wrote stays in the database: then this says so'),
            opened_at: instant,
            ended_at: instant.nullable(),
          }),
        ),
      })
      .describe('incidents that were open at some time of the day, gravest first'),
  })
  .describe('Service levels of the day: what was measured, against what, and what follows.')

export type SloSnapshotFile = z.infer<typeof sloSnapshotFile>
