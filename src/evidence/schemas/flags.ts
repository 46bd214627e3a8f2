import * as z from 'zod'
import { count, day, decimal, digest, instant, tenant, whole } from './values.ts'

/** A flag's value. Booleans, texts and whole numbers as they are; anything else as the text of its JSON. */
const value = z.union([z.boolean(), z.string(), z.int(), z.null()])

export const flagsFile = z
  .strictObject({
    type: z.literal('tms-flags-v1'),
    day,
    observed_at: instant.describe("whose values these are: the day's end, or the moment of a provisional pack"),
    catalogue_sha256: digest.nullable(),
    tenants: count,
    flags: z
      .array(
        z.strictObject({
          key: z.string(),
          type: z.string(),
          value,
          source: z.enum(['default', 'global', 'environment']),
          required: value.describe('what the required posture demands; null: nothing'),
          meets: z.boolean().nullable().describe('null where nothing is demanded'),
        }),
      )
      .describe('effective values of the environment, outside of any tenant'),
    others: z
      .strictObject({
        count,
        listed: z.array(
          z.strictObject({ key: z.string(), tenant, value, percentage: decimal, canaries: count.nullable() }),
        ),
      })
      .describe('set for a tenant, or rolled out to a part of the tenants'),
    findings: z
      .strictObject({
        count,
        listed: z.array(z.strictObject({ key: z.string(), tenant, observed: value, expected: value })),
      })
      .describe('where the required posture is not met, for the environment and for every tenant'),
    spend: z
      .strictObject({
        count,
        listed: z.array(
          z.strictObject({
            tenant,
            agent: z.string(),
            tokens: whole,
            calls: whole,
            cost: decimal,
            tokens_limit: whole.nullable(),
            calls_limit: whole.nullable(),
            cost_limit: decimal.nullable(),
          }),
        ),
      })
      .describe("what the day's work used of its budgets; the dearest first"),
  })
  .describe('Flags and budgets: what agents were allowed, and what they used.')

export type FlagsFile = z.infer<typeof flagsFile>
