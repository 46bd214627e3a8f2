import * as z from 'zod'
import { keysContract } from './keys.ts'
import { retentionContract } from './retention.ts'
import { decimal, json, timestamp, uuid, wideInteger, write, type Entry } from './values.ts'

const day = z.string().regex(/^\d{4}-\d\d-\d\d$/)
const sha256 = z.string().regex(/^[0-9a-f]{64}$/)
const verdict = z.enum(['green', 'red', 'unknown'])
const tenant = z.string().nullable()
const files = z.record(z.string(), z.string())

/** What a pack will say, frozen, with its row in the ledger. */
const cut = z.object({
  revision: z.int(),
  final: z.boolean(),
  as_of: timestamp,
  cut_at: timestamp,
  key: sha256,
  verdict,
  manifest: z.string(),
  files,
  /** Its row in the ledger: its line and its body, as they are hashed. Null until it is sealed. */
  row: z.object({ seq: wideInteger, line: z.string(), body: z.string() }).nullable(),
})

const quarter = { at: timestamp }

const facts = z.object({
  day,
  from: timestamp,
  /** The day's end, or now while it isn't over. */
  until: timestamp,
  as_of: timestamp,
  over: z.boolean(),
  ledger: z.object({
    origin: z.string(),
    from_seq: wideInteger,
    tree_size: wideInteger,
    root_before: z.string(),
    root_after: z.string(),
  }),
  runs: z.object({
    completed: wideInteger,
    failed: wideInteger,
    retried: wideInteger,
    lost: wideInteger,
    tokens: wideInteger,
    calls: wideInteger,
    cost: decimal,
    samples: wideInteger,
    success_percent: decimal.nullable(),
    p50_ms: decimal.nullable(),
    p95_ms: decimal.nullable(),
    error_percent: decimal,
    quarters: z.array(
      z.object({
        ...quarter,
        completed: wideInteger,
        failed: wideInteger,
        success_percent: decimal.nullable(),
        p95_ms: decimal.nullable(),
      }),
    ),
  }),
  outbox: z.object({
    samples: wideInteger,
    waiting: wideInteger,
    dead: wideInteger,
    p50_ms: decimal.nullable(),
    p95_ms: decimal.nullable(),
    avg_ms: decimal.nullable(),
    oldest_waiting_ms: decimal.nullable(),
    quarters: z.array(
      z.object({ ...quarter, samples: wideInteger, p50_ms: decimal, p95_ms: decimal, avg_ms: decimal }),
    ),
  }),
  queue: z.array(z.object({ ...quarter, waiting: wideInteger, running: wideInteger, awaiting_approval: wideInteger })),
  flags: z.object({
    observed_at: timestamp,
    catalogue_sha256: z.string().nullable(),
    tenants: z.int(),
    flags: z.array(
      z.object({
        key: z.string(),
        type: z.string(),
        value: json,
        source: z.enum(['default', 'global', 'environment']),
        required: json.nullable(),
      }),
    ),
    others_count: z.int(),
    others: z.array(
      z.object({ key: z.string(), tenant, value: json, percentage: decimal, canaries: z.int().nullable() }),
    ),
    findings_count: z.int(),
    findings: z.array(z.object({ key: z.string(), tenant, observed: json, expected: json })),
  }),
  spend: z.object({
    count: z.int(),
    rows: z.array(
      z.object({
        tenant,
        agent: z.string(),
        tokens: wideInteger,
        calls: wideInteger,
        cost: decimal,
        tokens_limit: wideInteger.nullable(),
        calls_limit: wideInteger.nullable(),
        cost_limit: decimal.nullable(),
      }),
    ),
  }),
  alerts: z.object({
    count: z.int(),
    rows: z.array(
      z.object({
        id: wideInteger,
        priority: z.string(),
        status: z.enum(['OPEN', 'ENDED']),
        type: z.string(),
        tenant,
        title: z.string(),
        opened_at: timestamp,
        ended_at: timestamp.nullable(),
      }),
    ),
  }),
  traces: z.array(
    z.object({
      trace_id: z.string(),
      task: wideInteger,
      agent: z.string(),
      function: z.string(),
      outcome: z.string(),
      ms: wideInteger,
      at: timestamp,
    }),
  ),
  audit: z.object({
    rows: wideInteger,
    critical: wideInteger,
    /** How many different ones there are; `counts` has three hundred at most. */
    actions: z.int(),
    counts: z.array(z.object({ action: z.string(), outcome: z.string(), count: wideInteger })),
    listed: z.array(
      z.object({
        seq: wideInteger,
        at: timestamp,
        action: z.string(),
        outcome: z.string(),
        role: z.string(),
        who: z.string(),
        tenant,
        subject: z.string().nullable(),
        row_hash: sha256,
        body_sha256: sha256,
        trace_id: z.string().nullable(),
      }),
    ),
  }),
})

export const evidenceContract = {
  ...keysContract,
  ...retentionContract,
  evidence_state: {
    operation: 'evidence.build',
    reads: 'primary',
    /** Without a day: today, as the database knows it. */
    args: () => z.strictObject({ day: day.optional() }),
    result: () =>
      z.object({
        day,
        now: timestamp,
        today: day,
        over: z.boolean(),
        /** When this database was made ready; null: it never was. */
        begun: timestamp.nullable(),
        first_day: day.nullable(),
        database_id: uuid.nullable(),
        environment: z.string().nullable(),
        /** Revision of the day's final pack. */
        final: z.int().nullable(),
        /** It has a tombstone. */
        expired: z.boolean(),
        revisions: z.int(),
        next_revision: z.int(),
        /** The last final pack before this day. */
        previous: z.object({ day, manifest_sha256: sha256, checkpoint: z.string() }).nullable(),
        /** What was cut and isn't stored yet. */
        cut: cut.nullable(),
      }),
  },
  evidence_facts: {
    operation: 'evidence.build',
    reads: 'primary',
    args: () => z.strictObject({ day }),
    result: () => facts,
  },
  evidence_cut: {
    operation: 'evidence.build',
    reads: false,
    /** `instead`: passes over the cut of that revision, which waits and can't be read. */
    args: () => z.strictObject({ ...write, day, manifest: z.string(), files, instead: z.int().optional() }),
    result: () =>
      z.object({
        /** `pending`: another builder's cut is to be finished. `revision`: something came between, look again. */
        outcome: z.enum(['cut', 'pending', 'revision', 'final']),
        cut: cut.nullable(),
      }),
  },
  evidence_store: {
    operation: 'evidence.build',
    reads: false,
    args: () => z.strictObject({ ...write, day, revision: z.int(), files, signature: z.string() }),
    /** False: somebody else's bytes are the day's. */
    result: () => z.object({ stored: z.boolean() }),
  },
  evidence_pack: {
    operation: 'evidence.build',
    reads: 'primary',
    args: () => z.strictObject({ day, revision: z.int().optional() }),
    result: () =>
      z.object({
        pack: z
          .object({
            day,
            revision: z.int(),
            final: z.boolean(),
            as_of: timestamp,
            verdict,
            manifest_sha256: sha256,
            key: sha256,
            sums_sha256: sha256,
            files,
            /** SHA256SUMS.sig in base64. */
            signature: z.string(),
          })
          .nullable(),
      }),
  },
} as const satisfies Record<string, Entry>
