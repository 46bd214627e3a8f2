import * as z from 'zod'
import { count, day, digest, instant, verdict } from './values.ts'

export const manifestFile = z
  .strictObject({
    type: z.literal('tms-manifest-v1'),
    day,
    revision: z.int().min(1),
    final: z.boolean().describe('false: the day was not over, and a later revision replaces this one'),
    as_of: instant.describe('when the facts were gathered'),
    database: z.strictObject({ origin: z.string(), environment: z.string(), name: z.string().optional() }),
    verdict,
    previous: z
      .strictObject({ day, manifest_sha256: digest })
      .nullable()
      .describe('the last final pack before this day'),
    ledger: z
      .strictObject({ from_seq: count, tree_size: count })
      .describe("the day's rows: from_seq <= seq < tree_size"),
    files: z.record(z.string(), digest).describe('the facts'),
    key: digest.describe('fingerprint of the key that signed'),
  })
  .describe('What the ledger holds of a pack: digests of its facts, and the pack before.')

export type ManifestFile = z.infer<typeof manifestFile>
