import * as z from 'zod'
import { digest, instant } from './values.ts'

export const keysFile = z
  .strictObject({
    type: z.literal('tms-keys-v1'),
    keys: z.array(
      z.strictObject({
        fingerprint: digest,
        public_pem: z.string(),
        not_before: instant,
        not_after: instant,
        introduced_by: digest.nullable().describe('the older key; null: the first one'),
        introduction: z.string().nullable().describe("the older key's signature over this key, base64"),
        state: z.enum(['valid', 'retired', 'revoked']),
        ended_at: instant
          .nullable()
          .describe('when it stopped signing: another one took over, or it was revoked; null while it is valid'),
        revoked_at: instant.nullable(),
      }),
    ),
  })
  .describe('Public halves of the keys, each introduced by the one before. Trust none of them for standing here.')

export type KeysFile = z.infer<typeof keysFile>
