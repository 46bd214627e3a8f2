import * as z from 'zod'
import type { Connection } from '../drivers/connection.ts'

/**
 * Every setting, in one place: its key in tms.config.yaml, its flag, its variable, its default, whether it is secret.
 * Validation, `config show` and the documentation are made from this table.
 */
type Row = {
  readonly schema: z.ZodType<string> | z.ZodType<number>
  readonly about: string
  /** The flag of every command that sets it. */
  readonly flag?: string
  readonly variable: string
  /** False for what doesn't belong into a file: a person's own token. */
  readonly inFile: boolean
  /** `url`: only the credentials in it. `whole`: all of it. `words`, `template`: what reads like a secret in a list or a link. */
  readonly secret?: 'url' | 'whole' | 'words' | 'template'
  /** Relative ones are meant from the configuration file's folder. */
  readonly path?: true
  readonly default?: string | number
}

const text = z.string().min(1)
const seconds = z.int().min(1).max(3600)
const webUrl = z.url({ protocol: /^https?$/ })

/** A list of words, or one line that is split at its blanks; kept as JSON. It is run as it stands, without a shell. */
const argumentList = z
  .preprocess(wordsOf, z.array(z.string().min(1), 'must be a list of words').min(1))
  .transform((words) => JSON.stringify(words))

const drivers = ['embedded', 'postgres', 'supabase'] as const

export const settingsTable = {
  driver: {
    schema: z.enum(drivers),
    about: 'which kind of database: embedded, postgres or supabase',
    flag: 'driver',
    variable: 'TMS_DRIVER',
    inFile: true,
  },
  directory: {
    schema: text,
    about: 'folder of the embedded database',
    variable: 'TMS_DIRECTORY',
    inFile: true,
    path: true,
    default: '.tms',
  },
  databaseUrl: {
    schema: z.url({ protocol: /^postgres(ql)?$/ }),
    about: 'where Postgres is: postgres://user@host:port/database',
    variable: 'DATABASE_URL',
    inFile: true,
    secret: 'url',
  },
  replicaUrl: {
    schema: z.url({ protocol: /^postgres(ql)?$/ }),
    about: 'a replica of it, for reads',
    variable: 'DATABASE_REPLICA_URL',
    inFile: true,
    secret: 'url',
  },
  supabaseUrl: {
    schema: webUrl,
    about: 'where the Supabase project is',
    variable: 'SUPABASE_URL',
    inFile: true,
    secret: 'url',
  },
  supabaseAnonKey: {
    schema: text,
    about: "the project's anon key",
    variable: 'SUPABASE_ANON_KEY',
    inFile: true,
    secret: 'whole',
  },
  supabaseServiceRoleKey: {
    schema: text,
    about: "the project's service role key, used when there is no anon key; it gives no rights in tms",
    variable: 'SUPABASE_SERVICE_ROLE_KEY',
    inFile: true,
    secret: 'whole',
  },
  token: {
    schema: text,
    about: 'the JWT that says who you are, for supabase',
    variable: 'TMS_TOKEN',
    inFile: false,
    secret: 'whole',
  },
  timeout: {
    schema: seconds,
    about: 'seconds until a database call is given up',
    flag: 'timeout',
    variable: 'TMS_TIMEOUT',
    inFile: true,
    default: 30,
  },
  connectTimeout: {
    schema: seconds,
    about: 'seconds until connecting is given up',
    variable: 'TMS_CONNECT_TIMEOUT',
    inFile: true,
    default: 10,
  },
  pollMs: {
    schema: z.int().min(100).max(3_600_000),
    about: 'milliseconds between two looks at a database that cannot push',
    variable: 'TMS_POLL_MS',
    inFile: true,
    default: 2000,
  },
  artifacts: {
    schema: text,
    about: 'folder for what tms writes',
    variable: 'TMS_ARTIFACTS',
    inFile: true,
    path: true,
    default: 'artifacts',
  },
  policies: {
    schema: text,
    about: 'folder of the policy files',
    variable: 'TMS_POLICIES',
    inFile: true,
    path: true,
    default: 'policies',
  },
  agents: {
    schema: text,
    about: 'folder of your agents: modules that export what defineAgent returns',
    variable: 'TMS_AGENTS',
    inFile: true,
    path: true,
    default: 'agents',
  },
  secretsFolder: {
    schema: text,
    about: 'folder whose files outbox targets may name as their secrets',
    variable: 'TMS_SECRETS_FOLDER',
    inFile: true,
    path: true,
  },
  otelEndpoint: {
    schema: webUrl,
    about: 'where spans are sent: OTLP over HTTP, for instance http://collector:4318/v1/traces',
    variable: 'TMS_OTEL_ENDPOINT',
    inFile: true,
    secret: 'url',
  },
  traceLink: {
    schema: text.includes('{traceId}'),
    about: 'page of one trace, with {traceId} in it',
    variable: 'TMS_TRACE_LINK',
    inFile: true,
    secret: 'template',
  },
  keys: {
    schema: text,
    about: "folder of the signing key (default: keys in the user's configuration folder)",
    variable: 'TMS_KEYS',
    inFile: true,
    path: true,
  },
  stopFolder: {
    schema: text,
    about: "folder of the file that stops this host's workers while the database is down",
    variable: 'TMS_STOP_FOLDER',
    inFile: true,
    path: true,
  },
  'signing.key': {
    schema: text,
    about: 'the private key that signs evidence, as PEM; it wins over the two below and over the file in `keys`',
    variable: 'TMS_SIGNING_KEY',
    inFile: false,
    secret: 'whole',
  },
  'signing.command': {
    schema: argumentList,
    about: 'program that signs in place of a key file (KMS, hardware token): bytes on stdin, signature on stdout',
    variable: 'TMS_SIGNING_COMMAND',
    inFile: true,
    secret: 'words',
  },
  'signing.publicKey': {
    schema: text,
    about: "the public half of that program's key: PEM, or a file with it",
    variable: 'TMS_SIGNING_PUBLIC_KEY',
    inFile: true,
  },
  monitoringIntervalMs: {
    schema: z.int().min(1000),
    about: 'milliseconds between two rounds of monitoring',
    variable: 'MONITORING_INTERVAL',
    inFile: true,
    default: 60_000,
  },
  doorUrl: {
    schema: webUrl,
    about: 'where the door is: then its answers count for uptime',
    variable: 'TMS_DOOR_URL',
    inFile: true,
    secret: 'url',
  },
  apiSecretKey: {
    schema: text,
    about: 'secret that signs requests to the API',
    variable: 'API_SECRET_KEY',
    inFile: true,
    secret: 'whole',
  },
  alertWebhookUrl: {
    schema: webUrl,
    about: 'where alerts are posted',
    variable: 'ALERT_WEBHOOK_URL',
    inFile: true,
    secret: 'whole',
  },
  slackWebhookUrl: {
    schema: webUrl,
    about: 'where Slack messages are posted',
    variable: 'SLACK_WEBHOOK_URL',
    inFile: true,
    secret: 'whole',
  },
  pagerdutyRoutingKey: {
    schema: text,
    about: 'the PagerDuty integration that is paged',
    variable: 'PAGERDUTY_ROUTING_KEY',
    inFile: true,
    secret: 'whole',
  },
} as const satisfies Record<string, Row>

function wordsOf(value: unknown): unknown {
  if (typeof value !== 'string') return value
  if (!value.trimStart().startsWith('[')) return value.split(/\s+/).filter(Boolean)
  try {
    return JSON.parse(value)
  } catch {
    return value
  }
}

export type SettingName = keyof typeof settingsTable
export type SettingRow = Row

// True because Object.keys of a const object are exactly its keys.
export const settingNames = Object.keys(settingsTable) as readonly SettingName[]

type Parsed<N extends SettingName> = z.output<(typeof settingsTable)[N]['schema']>
type Defaulted = { [N in SettingName]: (typeof settingsTable)[N] extends { default: unknown } ? N : never }[SettingName]

/** The values that apply; those without a default may be absent. Paths are absolute. */
export type SettingValues = { readonly [N in Defaulted]: Parsed<N> } & {
  readonly [N in Exclude<SettingName, Defaulted>]?: Parsed<N>
}

export type Settings = {
  readonly values: SettingValues
  /** Where each value came from, in words: `--driver`, `DATABASE_URL`, `tms.config.yaml:3`, `default`. */
  readonly sources: Readonly<Partial<Record<SettingName, string>>>
  /** The configuration file, absolute; null when there is none. */
  readonly file: string | null
  readonly profile: string | null
  /** How to reach the database that was chosen. */
  readonly connection: Connection
  readonly warnings: readonly string[]
  /** The secret values themselves, so that whoever prints can leave them out. */
  readonly secrets: readonly string[]
}

/** What `init` and `quickstart` need beyond the rules for everybody else. */
export type SettingsRequest = {
  /** The embedded database may be created, and there may be neither configuration nor URL. */
  readonly create?: boolean
  /** `false`: DATABASE_URL and SUPABASE_URL say nothing about which database is meant. */
  readonly ambientUrls?: boolean
}
