import * as z from 'zod'
import { write, type Entry } from './values.ts'

/** What may be asked for at the door, by the operation that must grant it. */
export const doorOperations = ['task.enqueue', 'webhook.in', 'dlq.dry_run', 'dlq.replay'] as const
export type DoorOperation = (typeof doorOperations)[number]

/** The door's part of the contract. */
export const doorContract = {
  /** The request id is new for each request that came in, and not made from its nonce: a repeat must be seen as one. */
  door_admit: {
    operation: 'webhook.in',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        key_id: z.string(),
        /** sha256 of the secret that verified the signature, in hex. */
        key_sha256: z.string().regex(/^[0-9a-f]{64}$/),
        nonce: z.string(),
        /** Seconds since 1970, as signed. */
        timestamp: z.int(),
        address: z.string(),
        tenant: z.string(),
        operation: z.enum(doorOperations),
      }),
    /** Whose key it is, and the tenant's key. */
    result: () => z.object({ account: z.string(), tenant: z.string() }),
  },
  door_knock: {
    operation: 'webhook.in',
    reads: false,
    args: () => z.strictObject({ address: z.string() }),
    result: () => z.object({ counted: z.boolean() }),
  },
} as const satisfies Record<string, Entry>
