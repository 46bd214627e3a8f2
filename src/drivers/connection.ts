/** Everything a driver needs to know to connect; made by `src/config`, opened by `open.ts`. */
export type Connection = EmbeddedConnection | PostgresConnection | SupabaseConnection

export type EmbeddedConnection = {
  readonly driver: 'embedded'
  /** The folder (usually `.tms`) that holds the database, the owner's lock and its socket. */
  readonly directory: string
  /** Only `init` and `quickstart` may create a database that isn't there. */
  readonly create: boolean
  readonly callTimeoutMs: number
  /** Calls as this service account instead of as the local user, who may do more: so workers are held by the workers' rules. */
  readonly account?: ServiceAccount
}

export const serviceAccounts = ['autopilot', 'agents', 'dlq', 'ci', 'n8n', 'system'] as const
export type ServiceAccount = (typeof serviceAccounts)[number]

export type PostgresConnection = {
  readonly driver: 'postgres'
  readonly url: string
  readonly replicaUrl?: string
  readonly connectTimeoutMs: number
  readonly callTimeoutMs: number
}

export type SupabaseConnection = {
  readonly driver: 'supabase'
  readonly url: string
  /** The project's API key; sent as `apikey`. */
  readonly key: string
  /** A person's or service account's JWT; without one the key is the token. */
  readonly token?: string
  readonly callTimeoutMs: number
  readonly pollMs: number
}
