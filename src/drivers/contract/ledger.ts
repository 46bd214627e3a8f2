import * as z from 'zod'
import { scope, timestamp, wideInteger, write, type Entry } from './values.ts'

/** The ledger: sealing, heads, proofs, checkpoints, reading, verification. Sequence numbers and sizes are int8, so text. */

const hash = z.string().regex(/^[A-Za-z0-9+/]{43}=$/)
const hex = z.string().regex(/^[0-9a-f]{64}$/)

const checkpoint = z.object({
  id: wideInteger,
  size: wideInteger,
  root: hash,
  /** Fingerprint of the key that signed. */
  key: hex,
  at: timestamp,
  note: z.string(),
  /** Lines of cosignatures, to be put behind the note. */
  witnesses: z.array(z.string()),
})

/** Counted up to a thousand. Null to a caller who doesn't see all rows. */
const waiting = {
  pending: wideInteger.nullable(),
  /** Null when nothing waits. Above 60 the sealer doesn't run. */
  oldest_pending_seconds: z.number().nullable(),
}

/** Positions, not names: a ledger has millions. The first four are null for rows the caller may not see, or only redacted. */
const exportedRow = z.tuple([
  /** line */ z.string().nullable(),
  /** subject */ z.string().nullable(),
  /** why */ z.string().nullable(),
  /** body */ z.string().nullable(),
  /** row hash, hex */ z.string(),
  /** leaf, base64 */ z.string(),
])

export type RowFinding = z.infer<typeof rowFinding>
const rowFinding = z.object({
  /** What doesn't fit: see the table in docs/ledger.md. */
  kind: z.enum(['gap', 'missing', 'body', 'line', 'chain', 'leaf', 'runs', 'node']),
  seq: wideInteger,
  /** Of a gap: the numbers that are missing. */
  from: wideInteger.optional(),
  to: wideInteger.optional(),
  /** Of a missing row: its number in the inbox. */
  id: wideInteger.optional(),
  level: z.number().optional(),
  expected: z.string().optional(),
  found: z.string().optional(),
})

export const ledgerContract = {
  ledger_tail: {
    operation: 'audit.read',
    reads: 'replica',
    args: () => z.strictObject({ ...scope, limit: z.int(), before: wideInteger.optional() }),
    result: () =>
      z.object({
        rows: z.array(
          z.object({
            id: wideInteger,
            /** Its place; null while it waits to be sealed. */
            seq: wideInteger.nullable(),
            at: timestamp,
            who: z.string(),
            role: z.string(),
            action: z.string(),
            outcome: z.string(),
            tenant: z.string().nullable(),
            subject: z.string(),
            why: z.string(),
            body_sha256: z.string(),
          }),
        ),
      }),
  },
  ledger_show: {
    operation: 'audit.read',
    reads: 'primary',
    args: () => z.strictObject({ seq: wideInteger }),
    result: () =>
      z.object({
        seq: wideInteger,
        id: wideInteger,
        at: timestamp,
        sealed_at: timestamp,
        who: z.string(),
        credential: z.string(),
        role: z.string(),
        fn: z.string(),
        action: z.string(),
        outcome: z.string(),
        tenant: z.string().nullable(),
        subject: z.string(),
        why: z.string(),
        trace_id: z.string().nullable(),
        /** As it was hashed. Null where personal data isn't shown, and so is the line. */
        body: z.string().nullable(),
        body_sha256: z.string(),
        prev_hash: z.string(),
        row_hash: z.string(),
        leaf: hash,
        line: z.string().nullable(),
      }),
  },
  ledger_lines: {
    operation: 'audit.read',
    reads: 'primary',
    /** From `from` to below `to`; at most 5,000 rows at once. */
    args: () => z.strictObject({ from: wideInteger, to: wideInteger }),
    result: () => z.object({ rows: z.array(exportedRow) }),
  },

  // Safe to repeat without a request id: what is sealed is not sealed again.
  ledger_seal: {
    operation: 'ledger.seal',
    reads: false,
    args: () =>
      z.strictObject({
        limit: z.int().optional(),
        /** Look through the whole inbox, for rows that were missed. */
        everything: z.boolean().optional(),
      }),
    result: () =>
      z.object({
        sealed: z.number(),
        /** Somebody else is sealing; nothing was done. */
        busy: z.boolean(),
        more: z.boolean(),
        size: wideInteger,
        ...waiting,
      }),
  },

  ledger_head: {
    operation: null,
    reads: 'primary',
    /** Without `size`: now. */
    args: () => z.strictObject({ size: wideInteger.optional() }),
    result: () =>
      z.object({
        /** Null before `init`. */
        origin: z.string().nullable(),
        size: wideInteger,
        /** How many rows are sealed now. */
        sealed: wideInteger,
        /** Null when hashes are missing: verify. */
        root: hash.nullable(),
        ...waiting,
      }),
  },
  ledger_proof: {
    operation: null,
    reads: 'primary',
    args: () => z.strictObject({ index: wideInteger, size: wideInteger }),
    result: () => z.object({ hashes: z.array(hash.nullable()), root: hash.nullable(), leaf: hash.nullable() }),
  },
  ledger_consistency: {
    operation: null,
    reads: 'primary',
    args: () => z.strictObject({ from: wideInteger, to: wideInteger }),
    result: () => z.object({ hashes: z.array(hash.nullable()), from_root: hash.nullable(), to_root: hash.nullable() }),
  },
  ledger_cover: {
    operation: null,
    reads: 'primary',
    args: () => z.strictObject({ from: wideInteger, to: wideInteger, size: wideInteger }),
    result: () => z.object({ before: z.array(hash.nullable()), after: z.array(hash.nullable()) }),
  },

  ledger_checkpoint_add: {
    operation: 'ledger.seal',
    reads: false,
    args: () => z.strictObject({ ...write, note: z.string(), size: wideInteger, root: z.string(), key: hex }),
    result: () => checkpoint.extend({ first: z.boolean() }),
  },
  ledger_witness_add: {
    operation: 'ledger.seal',
    reads: false,
    args: () => z.strictObject({ ...write, size: wideInteger, root: z.string(), line: z.string() }),
    result: () => checkpoint,
  },
  ledger_checkpoints: {
    operation: null,
    reads: 'primary',
    /** The newest, or the oldest of those that cover so many rows. */
    args: () => z.strictObject({ limit: z.int(), at_least: wideInteger.optional() }),
    result: () => z.object({ checkpoints: z.array(checkpoint) }),
  },

  // Verification, in pieces that can be asked for side by side.
  ledger_verify: {
    operation: 'ledger.seal',
    reads: 'primary',
    /** From a multiple of 16; at most 65,536 rows at once. */
    args: () => z.strictObject({ from: wideInteger, to: wideInteger }),
    result: () =>
      z.object({
        from: wideInteger,
        to: wideInteger,
        checked: wideInteger,
        /** Of these the first hundred are named. */
        wrong: wideInteger,
        findings: z.array(rowFinding),
      }),
  },
  ledger_verify_inbox: {
    operation: 'ledger.seal',
    reads: 'primary',
    /** Numbers of the inbox; at most 200,000 at once. */
    args: () => z.strictObject({ from: wideInteger, to: wideInteger }),
    result: () =>
      z.object({
        from: wideInteger,
        to: wideInteger,
        /** Behind the last number of the inbox. */
        end: wideInteger,
        checked: wideInteger,
        unsealed: wideInteger,
        first_id: wideInteger.nullable(),
        last_id: wideInteger.nullable(),
        oldest: timestamp.nullable(),
      }),
  },
  ledger_verify_records: {
    operation: 'ledger.seal',
    reads: 'primary',
    /** Numbers of the inbox; at most 200,000 at once. */
    args: () => z.strictObject({ from: wideInteger, to: wideInteger }),
    result: () =>
      z.object({
        from: wideInteger,
        to: wideInteger,
        /** Behind the last number of the inbox. */
        end: wideInteger,
        /** How many things are kept that a row of this action speaks of, and how many such rows are here. */
        kept: z.record(z.string(), wideInteger),
        said: z.record(z.string(), wideInteger),
        /** Of these the first hundred are named. */
        wrong: wideInteger,
        findings: z.array(z.object({ id: wideInteger, place: z.string(), what: z.string() })),
      }),
  },
  ledger_verify_end: {
    operation: 'ledger.seal',
    reads: 'primary',
    args: () => z.strictObject({}),
    result: () =>
      z.object({
        origin: z.string().nullable(),
        rows: wideInteger,
        /** Behind the last number of the ledger. */
        size: wideInteger,
        /** How many rows the sealer has sealed. */
        sealed: wideInteger,
        nodes_beyond: wideInteger,
        checkpoints: wideInteger,
        findings: z.array(
          z.object({
            kind: z.enum(['cut', 'rewritten']),
            size: wideInteger,
            at: timestamp,
            expected: z.string(),
            found: z.string().nullable(),
          }),
        ),
      }),
  },
} as const satisfies Record<string, Entry>
