import type { Contract, ContractFunction } from './contract.ts'

/** A refusal is an answer, not an exception: the record of it commits together with it. */
export type Refused = {
  readonly refused: {
    readonly code: string
    readonly what: string
    readonly why: string
    readonly next: readonly string[]
    /** When the same may be granted, in UTC; absent: nobody knows, or never. */
    readonly again_at?: string | undefined
  }
}

export type CallOptions = {
  /** Gives up waiting. What the database already started may still commit; the request id makes asking again safe. */
  readonly signal?: AbortSignal
  /**
   * The server shall end this call after so long, when that is sooner than for all calls. Through PostgREST the function's
   * own limit holds: there is no way to tell that server. On the embedded database it is what the engine may work for, which
   * is ended with it and opened again.
   */
  readonly timeoutMs?: number
}

/** What may be listened to. A signal says "look again" and carries nothing: any login can listen. */
export const channels = ['flags', 'control', 'tasks', 'outbox', 'dlq'] as const
export type Channel = (typeof channels)[number]
export type Signal = { readonly channel: Channel }
export type Unlisten = () => Promise<void>

/**
 * Whatever can call the contract's functions. Nothing above this interface knows which driver it is.
 * `drivers/conformance.ts` says what an implementation must do.
 */
export interface Driver {
  /** Where the calls go, in words for people and certificates: never holds a password. */
  readonly target: Target
  call<F extends ContractFunction>(
    fn: F,
    args: Contract[F]['args'],
    options?: CallOptions,
  ): Promise<Contract[F]['result'] | Refused>
  listen(channel: Channel, onSignal: (signal: Signal) => void): Promise<Unlisten>
  close(): Promise<void>
  /** Present when this connection may also run SQL of our own: migrations, logins, backup. */
  readonly administration?: Administration
}

export type Target = {
  /** For instance `postgres db.example.com:5432/tms` or `embedded .tms`. */
  readonly name: string
  /** What a person types after --confirm to consent to something about this database: `db.example.com/tms`. */
  readonly consentName: string
  /** Others may keep things in this database too: putting the schema into it needs consent. */
  readonly shared: boolean
}

/** What only drivers that speak SQL can do. The SQL itself comes from `src/db`. */
export interface Administration {
  /**
   * Runs the statements in one transaction on one connection and gives the rows of the last one.
   * All or nothing; a lost connection leaves nothing behind.
   */
  transaction<T>(work: (run: RunSql) => Promise<T>): Promise<T>
}

/** One statement with parameters, or several without. */
export type RunSql = (sql: string, parameters?: readonly unknown[]) => Promise<readonly Record<string, unknown>[]>
