import * as z from 'zod'
import { day, decimal, instant, whole, window } from './values.ts'

export const outboxLagFile = z
  .strictObject({
    type: z.literal('tms-outbox-lag-v1'),
    day,
    window,
    as_of: instant.describe('what still waits counts with its age at this moment'),
    limits: z.strictObject({ p95_ms: decimal, avg_ms: decimal }),
    samples: whole.describe('deliveries of events written in the window, those given up left out'),
    waiting: whole,
    dead: whole.describe('given up after the last try'),
    p50_ms: decimal.nullable(),
    p95_ms: decimal.nullable(),
    avg_ms: decimal.nullable(),
    oldest_waiting_ms: decimal.nullable(),
    quarters: z.array(
      z.strictObject({ at: instant, samples: whole, p50_ms: decimal, p95_ms: decimal, avg_ms: decimal }),
    ),
  })
  .describe('How long events took from being written to being delivered.')

export type OutboxLagFile = z.infer<typeof outboxLagFile>
