import * as z from 'zod'
import { doorContract } from './contract/door.ts'
import { evidenceContract } from './contract/evidence.ts'
import { fleetContract } from './contract/fleet.ts'
import { incidentsContract } from './contract/incidents.ts'
import { invariantsContract } from './contract/invariants.ts'
import { ledgerContract } from './contract/ledger.ts'
import { postureContract } from './contract/posture.ts'
import { securityContract } from './contract/security.ts'
import { json, scope, timestamp, uuid, wideInteger, write, type Entry } from './contract/values.ts'

/**
 * The contract: every function the database offers, what goes in and what comes out.
 *
 * Each takes one jsonb and returns one jsonb, so all drivers send the same bytes. `operation` is the line of
 * policies/roles.yaml that must grant it; `null` means any known principal may ask (about itself, or about versions).
 * `reads` marks functions that write nothing and that may be answered by a replica; reads of flags, permissions and
 * the fence always go to the primary, so they are `primary`.
 */

/** Raised by one with each release that changes the contract. One older and one newer still work together. */
export const contractVersion = 1

export const environments = ['production', 'staging', 'development'] as const
export const credentialKinds = ['postgres', 'jwt', 'local', 'key'] as const
export const stages = ['off', 'canary', 'cohort', 'all'] as const
export const levels = ['global', 'environment', 'tenant'] as const
export const flagTypes = ['boolean', 'string', 'integer', 'decimal', 'json'] as const

const credential = z.object({
  kind: z.enum(credentialKinds),
  name: z.string(),
  created_at: timestamp,
  age_days: z.number(),
  expires_at: timestamp.nullable(),
  state: z.enum(['valid', 'expiring', 'expired', 'revoked']),
})

const role = z.object({ role: z.string(), tenant: z.string().nullable(), expires_at: timestamp.nullable() })

const flagRow = z.object({
  key: z.string(),
  type: z.enum(flagTypes),
  value: json,
  /** Where the effective value comes from. */
  source: z.enum(['default', ...levels]),
  /** Set when a percentage or canary list decides per tenant. */
  rollout: z
    .object({
      stage: z.enum(stages),
      percentage: z.string(),
      cohort: z.string().nullable(),
      canary: z.array(z.string()),
    })
    .nullable(),
  default: json,
  safe: json,
  owner: z.string(),
  expires: z.string().nullable(),
  description: z.string(),
  updated_at: timestamp.nullable(),
  updated_by: z.string().nullable(),
  why: z.string().nullable(),
})

const finding = z.object({
  key: z.string(),
  scope: z.string(),
  observed: json,
  expected: z.string(),
  why: z.string(),
})

const flagChange = z.object({
  id: wideInteger,
  at: timestamp,
  who: z.string(),
  role: z.string(),
  key: z.string(),
  scope: z.string(),
  action: z.string(),
  before: json,
  after: json,
  why: z.string(),
})

const rolloutState = z.object({
  key: z.string(),
  value: json,
  stage: z.enum(stages),
  since: timestamp.nullable(),
  percentage: z.string(),
  cohort: z.string().nullable(),
  canary: z.array(z.string()),
  wait_seconds: z.number(),
  /** When the wait of this stage is over. */
  next_at: timestamp.nullable(),
  next_stage: z.enum(stages).nullable(),
  health: z.enum(['green', 'red', 'unknown']),
  /** Where something else was set by hand, which wins over the rollout. A database one version older doesn't say. */
  by_hand: z.array(z.string()).optional(),
})

export type CatalogueEntry = z.infer<typeof catalogueEntry>
export const catalogueEntry = z.strictObject({
  key: z.string(),
  type: z.enum(flagTypes),
  default: json,
  safe: json,
  owner: z.string(),
  expires: z.string().nullable(),
  description: z.string(),
  /** The value `flags verify` demands, for the environment and for every tenant. */
  required: json.optional(),
  /** Only these values; for strings and numbers. */
  values: z.array(json).optional(),
  minimum: z.string().optional(),
  maximum: z.string().optional(),
  /** Another mechanism writes it; `flags set` refuses and names `instead`. */
  guarded: z.boolean().optional(),
  instead: z.array(z.string()).optional(),
})

export const contract = {
  // -- who and what
  contract_version: {
    operation: null,
    reads: 'primary',
    args: () => z.strictObject({}),
    result: () => z.object({ contract: z.number(), server: z.string() }),
  },
  whoami: {
    operation: null,
    reads: 'primary',
    args: () => z.strictObject({}),
    result: () =>
      z.object({
        principal: z.string(),
        kind: z.enum(['human', 'service']),
        credential: z.object({ kind: z.enum(credentialKinds), expires_at: timestamp.nullable() }),
        roles: z.array(role),
        environment: z.enum(environments).nullable(),
        operations: z.array(z.string()),
      }),
  },
  status: {
    operation: null,
    reads: 'primary',
    args: () => z.strictObject({}),
    result: () =>
      z.object({
        environment: z.enum(environments).nullable(),
        initialised_at: timestamp.nullable(),
        /** Null before `init`. */
        database_id: z.string().nullable(),
        contract: z.number(),
        server: z.string(),
        now: timestamp,
        tenants: z.number(),
        flags_set: z.number(),
        last_change_at: timestamp.nullable(),
        unsealed_ledger_rows: wideInteger,
      }),
  },
  schema_state: {
    operation: null,
    reads: 'primary',
    args: () => z.strictObject({}),
    result: () =>
      z.object({
        files: z.array(
          z.object({
            kind: z.enum(['migration', 'function']),
            name: z.string(),
            sha256: z.string(),
            applied_at: timestamp,
          }),
        ),
      }),
  },
  doctor: {
    operation: 'doctor.read',
    reads: 'primary',
    args: () => z.strictObject({}),
    result: () =>
      z.object({
        checks: z.array(
          z.object({
            check: z.string(),
            state: z.enum(['ok', 'problem', 'unknown']),
            what: z.string(),
            next: z.array(z.string()),
          }),
        ),
        /** sha256 of each function's body: compared with the shipped ones. */
        functions: z.record(z.string(), z.string()),
      }),
  },
  environment_init: {
    operation: 'environment.init',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        environment: z.enum(environments),
        /** sha256 in hex; the token itself never reaches the database. */
        override_token_sha256: z.string().regex(/^[0-9a-f]{64}$/),
        signing_key_fingerprint: z.string().nullable(),
      }),
    result: () =>
      z.object({
        environment: z.enum(environments),
        first: z.boolean(),
        token_in_force: z.boolean().optional(),
        database_id: z.string(),
      }),
  },
  override_token_rotate: {
    operation: 'environment.override_token',
    reads: false,
    args: () =>
      z.strictObject({ ...write, override_token_sha256: z.string().regex(/^[0-9a-f]{64}$/), why: z.string() }),
    result: () => z.object({ rotated: z.boolean() }),
  },

  // -- tenants, people, service accounts, portals
  tenants_list: {
    operation: 'tenants.manage',
    reads: 'replica',
    args: () => z.strictObject({}),
    result: () =>
      z.object({
        tenants: z.array(z.object({ key: z.string(), id: uuid, name: z.string(), created_at: timestamp })),
      }),
  },
  tenants_add: {
    operation: 'tenants.manage',
    reads: false,
    args: () => z.strictObject({ ...write, key: z.string(), name: z.string() }),
    result: () => z.object({ tenant: z.object({ key: z.string(), id: uuid, name: z.string() }) }),
  },
  users_list: {
    operation: 'users.manage',
    reads: 'replica',
    args: () => z.strictObject({ ...scope }),
    result: () =>
      z.object({
        users: z.array(
          z.object({
            principal: z.string(),
            roles: z.array(role),
            credentials: z.array(credential),
            created_at: timestamp,
          }),
        ),
      }),
  },
  users_grant: {
    operation: 'users.manage',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        ...scope,
        principal: z.string(),
        role: z.string(),
        expires_at: timestamp.optional(),
        /** How this person proves who they are, when they have no credential yet. */
        credential: z.strictObject({ kind: z.enum(['postgres', 'jwt', 'local']), name: z.string() }).optional(),
      }),
    result: () => z.object({ principal: z.string(), roles: z.array(role), changed: z.boolean() }),
  },
  users_revoke: {
    operation: 'users.manage',
    reads: false,
    args: () => z.strictObject({ ...write, ...scope, principal: z.string(), role: z.string().optional() }),
    result: () => z.object({ principal: z.string(), roles: z.array(role), changed: z.boolean() }),
  },
  accounts_list: {
    operation: 'accounts.rotate',
    reads: 'replica',
    args: () => z.strictObject({}),
    result: () =>
      z.object({
        accounts: z.array(
          z.object({
            account: z.string(),
            scope: z.string(),
            credentials: z.array(credential),
            state: z.enum(['ok', 'due', 'expired', 'none']),
          }),
        ),
        max_age_days: z.number(),
      }),
  },
  accounts_rotate: {
    operation: 'accounts.rotate',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        account: z.string(),
        kind: z.enum(['postgres', 'jwt', 'key']),
        /** The login's name, the token's `sub`, or the key's id. */
        name: z.string(),
        /** For a key: sha256 of the secret, in hex. */
        secret_sha256: z
          .string()
          .regex(/^[0-9a-f]{64}$/)
          .optional(),
        overlap_seconds: z.int(),
      }),
    result: () =>
      z.object({
        account: z.string(),
        credential,
        /** The older ones and when each stops working. */
        retiring: z.array(credential),
      }),
  },
  portals_list: {
    operation: 'portals.manage',
    reads: 'primary',
    args: () => z.strictObject({ ...scope }),
    result: () =>
      z.object({
        portals: z.array(
          z.object({
            portal: z.string(),
            path: z.string(),
            roles: z.array(z.object({ role: z.string(), access: z.enum(['read', 'write']) })),
            enabled: z.boolean(),
          }),
        ),
      }),
  },
  /** Without `as`: does the portal open for the caller. With `as`: would it for that role (needs portals.manage). */
  portals_check: {
    operation: null,
    reads: 'primary',
    args: () => z.strictObject({ ...scope, portal: z.string(), as: z.string().optional() }),
    result: () =>
      z.object({
        portal: z.string(),
        path: z.string(),
        role: z.string(),
        enabled: z.boolean(),
        access: z.enum(['none', 'read', 'write']),
        why: z.string(),
      }),
  },

  // -- flags
  flags_list: {
    operation: 'flags.read',
    reads: 'primary',
    args: () => z.strictObject({ ...scope }),
    result: () => z.object({ scope: z.string(), flags: z.array(flagRow) }),
  },
  flags_get: {
    operation: 'flags.read',
    reads: 'primary',
    args: () => z.strictObject({ ...scope, key: z.string() }),
    result: () =>
      z.object({
        scope: z.string(),
        flag: flagRow,
        /** Every stored row for the key that the caller may see, least specific first. */
        overrides: z.array(
          z.object({
            scope: z.string(),
            value: json,
            percentage: z.string(),
            stage: z.enum(stages),
            canary: z.array(z.string()),
            updated_at: timestamp,
            updated_by: z.string(),
            why: z.string(),
          }),
        ),
      }),
  },
  flags_set: {
    operation: 'flags.write',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        ...scope,
        key: z.string(),
        level: z.enum(levels),
        /** Absent together with `unset: true`: the row is removed and the next wider one applies. */
        value: json.optional(),
        unset: z.boolean().optional(),
        /** Percent of tenants with up to two decimals, as text: "12.5". */
        percentage: z.string().optional(),
        canary: z.array(z.string()).optional(),
        why: z.string(),
      }),
    result: () =>
      z.object({
        key: z.string(),
        scope: z.string(),
        before: json,
        after: json,
        percentage: z.string(),
        changed: z.boolean(),
      }),
  },
  flags_history: {
    operation: 'flags.read',
    reads: 'primary',
    args: () =>
      z.strictObject({ ...scope, key: z.string().optional(), limit: z.int(), before: wideInteger.optional() }),
    result: () => z.object({ changes: z.array(flagChange) }),
  },
  flags_rollout: {
    operation: 'flags.rollout',
    reads: false,
    args: () =>
      z.strictObject({
        ...write,
        key: z.string(),
        /** start: begin at canary. next: one stage on. off: back to nobody, at once. */
        step: z.enum(['start', 'next', 'off']),
        value: json.optional(),
        canary: z.array(z.string()).optional(),
        cohort: z.strictObject({ name: z.string(), percentage: z.string() }).optional(),
        wait_seconds: z.int().optional(),
        /** `<key>@<stage>`: a person's consent to enter that stage, needed while nothing measures the stage's health. */
        consent: z.string().optional(),
        why: z.string(),
      }),
    result: () => rolloutState,
  },
  flags_rollout_state: {
    operation: 'flags.read',
    reads: 'primary',
    args: () => z.strictObject({ key: z.string() }),
    result: () => rolloutState,
  },
  flags_verify: {
    operation: 'flags.read',
    reads: 'primary',
    args: () => z.strictObject({}),
    result: () =>
      z.object({
        checked: z.number(),
        /** How many flags the posture demands a value of. None is not green: then nothing was checked. */
        required: z.number(),
        tenants: z.number(),
        findings: z.array(finding),
        expired: z.array(z.object({ key: z.string(), expires: z.string(), owner: z.string() })),
        catalogue_sha256: z.string().nullable(),
      }),
  },
  flags_catalogue: {
    operation: 'flags.catalogue',
    reads: false,
    args: () => z.strictObject({ ...write, sha256: z.string(), entries: z.array(catalogueEntry) }),
    result: () => z.object({ added: z.array(z.string()), changed: z.array(z.string()), removed: z.array(z.string()) }),
  },

  ...fleetContract,
  ...doorContract,

  // -- proof
  ...ledgerContract,
  ...evidenceContract,
  ...postureContract,

  // -- when things go wrong
  ...incidentsContract,
  ...invariantsContract,
  ...securityContract,

  // -- signals, for drivers without push
  signals: {
    operation: null,
    reads: 'primary',
    args: () => z.strictObject({ channel: z.string(), after: wideInteger.nullable() }),
    result: () => z.object({ cursor: wideInteger, signals: z.number() }),
  },
} as const satisfies Record<string, Entry>

export type ContractFunction = keyof typeof contract

export type Contract = {
  [F in ContractFunction]: {
    args: z.input<ReturnType<(typeof contract)[F]['args']>>
    result: z.output<ReturnType<(typeof contract)[F]['result']>>
  }
}

export function isContractFunction(name: string): name is ContractFunction {
  return Object.hasOwn(contract, name)
}

export const refusalSchema = z.object({
  refused: z.object({
    code: z.string(),
    what: z.string(),
    why: z.string(),
    next: z.array(z.string()),
    again_at: z.string().optional(),
  }),
})
