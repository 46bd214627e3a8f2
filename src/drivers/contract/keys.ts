import * as z from 'zod'
import { timestamp, write, type Entry } from './values.ts'

const fingerprint = z.string().regex(/^[0-9a-f]{64}$/)

/** What the database keeps of a key. */
export type KeyRecord = z.infer<typeof keyRecord>
const keyRecord = z.object({
  fingerprint,
  public_pem: z.string(),
  not_before: timestamp,
  not_after: timestamp,
  /** Null: the beginning of a chain. */
  introduced_by: fingerprint.nullable(),
  /** Base64: the signature of the key that introduces it, or of itself. */
  introduction: z.string(),
  state: z.enum(['valid', 'retired', 'revoked']),
  added_at: timestamp,
  /** When it stopped signing. */
  ended_at: timestamp.nullable(),
  revoked_at: timestamp.nullable(),
  /** Why it was revoked; null for those who don't manage keys. */
  why: z.string().nullable(),
})

/** The signing keys' part of the contract. Private halves have no place in it. */
export const keysContract = {
  keys_list: {
    operation: null,
    reads: 'primary',
    args: () => z.strictObject({}),
    result: () =>
      z.object({
        now: timestamp,
        /** What `init` noted down, before keys were registered. */
        announced: z.string().nullable(),
        keys: z.array(keyRecord),
      }),
  },
  keys_add: {
    operation: 'evidence.keys',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        fingerprint,
        public_pem: z.string(),
        not_before: timestamp,
        not_after: timestamp,
        /** The key in force, which signed the introduction; null for the beginning of a chain. */
        introduced_by: fingerprint.nullable(),
        introduction: z.string(),
      }),
    result: () => z.object({ key: keyRecord, retired: fingerprint.nullable() }),
  },
  keys_revoke: {
    operation: 'evidence.keys',
    reads: false,
    args: () => z.strictObject({ ...write, fingerprint, why: z.string() }),
    result: () => z.object({ key: keyRecord }),
  },
} as const satisfies Record<string, Entry>
