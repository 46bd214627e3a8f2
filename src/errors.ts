/**
 * What a command ends with. The numbers are an interface: cron, CI and on-call scripts branch on them.
 */
export const exit = {
  done: 0,
  finding: 1,
  usage: 2,
  outside: 3,
  refused: 4,
  bug: 70,
  interrupted: 130,
  terminated: 143,
} as const

export type ExitCode = (typeof exit)[keyof typeof exit]

type ErrorRow = {
  readonly exit: ExitCode
  readonly http: number
  /** SQLSTATEs (five characters), SQLSTATE classes (two) and PostgREST codes that mean this. */
  readonly sql?: readonly string[]
}

/**
 * The one table: SQL code -> error code -> exit code -> HTTP status.
 * A code, once released, keeps its name and its meaning.
 */
export const errorTable = {
  // 2: could be seen without touching the outside, or the input itself is wrong
  USAGE: { exit: exit.usage, http: 400 },
  CONFIG_INVALID: { exit: exit.usage, http: 500 },
  CONFIG_MISSING: { exit: exit.usage, http: 500 },
  PROFILE_UNKNOWN: { exit: exit.usage, http: 500 },
  POLICY_INVALID: { exit: exit.usage, http: 500 },
  INPUT_INVALID: { exit: exit.usage, http: 400, sql: ['22', '23', 'TM400', 'PGRST102'] },
  NOT_FOUND: { exit: exit.usage, http: 404, sql: ['TM404'] },
  MIGRATION_CHANGED: { exit: exit.usage, http: 500 },

  // 3: something outside kept tms from working or knowing
  DB_UNREACHABLE: { exit: exit.outside, http: 503, sql: ['08', '57P01', '57P02', '57P03', 'PGRST000', 'PGRST001'] },
  DB_AUTH_FAILED: { exit: exit.outside, http: 503, sql: ['28', '3D000'] },
  TOKEN_REJECTED: { exit: exit.outside, http: 401, sql: ['PGRST300', 'PGRST301', 'PGRST302'] },
  DB_TIMEOUT: { exit: exit.outside, http: 504, sql: ['57014', '55P03', '25P03', '57P05', 'PGRST003'] },
  DB_BUSY: { exit: exit.outside, http: 503, sql: ['53300', '40', 'PGRST002'] },
  DB_FULL: { exit: exit.outside, http: 507, sql: ['53100', '53200', '53400', '54'] },
  DB_READ_ONLY: { exit: exit.outside, http: 503, sql: ['25006'] },
  DB_ERROR: { exit: exit.outside, http: 502 },
  SCHEMA_ABSENT: { exit: exit.outside, http: 503, sql: ['3F000', 'PGRST106'] },
  SCHEMA_OLDER: { exit: exit.outside, http: 503, sql: ['42883', '42P01', '42703', 'PGRST202'] },
  SCHEMA_NEWER: { exit: exit.outside, http: 503 },
  CONTRACT_MISMATCH: { exit: exit.outside, http: 502 },
  NO_SQL: { exit: exit.outside, http: 501 },
  OWNER_BUSY: { exit: exit.outside, http: 503 },
  SNAPSHOT_BROKEN: { exit: exit.outside, http: 500 },
  DISK_FULL: { exit: exit.outside, http: 507 },
  FILE_UNWRITABLE: { exit: exit.outside, http: 500 },
  FILE_UNREADABLE: { exit: exit.outside, http: 500 },
  TOOL_FAILED: { exit: exit.outside, http: 500 },
  NO_DATA: { exit: exit.outside, http: 503 },

  // 4: refused
  IDENTITY_UNKNOWN: { exit: exit.refused, http: 401 },
  CREDENTIAL_EXPIRED: { exit: exit.refused, http: 401 },
  ROLE_DENIED: { exit: exit.refused, http: 403, sql: ['42501', 'TM403'] },
  ENVIRONMENT_DENIED: { exit: exit.refused, http: 403 },
  CONSENT_MISSING: { exit: exit.refused, http: 403 },
  CONFLICT: { exit: exit.refused, http: 409, sql: ['TM409'] },
  REQUEST_REUSED: { exit: exit.refused, http: 409 },
  FLAG_GUARDED: { exit: exit.refused, http: 403 },
  STAGE_REFUSED: { exit: exit.refused, http: 409 },
  FENCED: { exit: exit.refused, http: 423, sql: ['TM423'] },
  PAUSED: { exit: exit.refused, http: 423 },
  POLICY_DENIED: { exit: exit.refused, http: 403 },
  BUDGET_EXCEEDED: { exit: exit.refused, http: 429 },
  RATE_LIMITED: { exit: exit.refused, http: 429 },
  LEASE_LOST: { exit: exit.refused, http: 409 },
  NO_SLOT: { exit: exit.refused, http: 409 },
  REPLAY_LIMIT: { exit: exit.refused, http: 429 },
  PLAN_CHANGED: { exit: exit.refused, http: 409 },
  TOKEN_WRONG: { exit: exit.refused, http: 403 },
  BLOCKED: { exit: exit.refused, http: 429 },
  NONCE_REUSED: { exit: exit.refused, http: 409 },
  SIGNATURE_INVALID: { exit: exit.refused, http: 401 },

  // 70, 130, 143
  BUG: { exit: exit.bug, http: 500 },
  INTERRUPTED: { exit: exit.interrupted, http: 499 },
  TERMINATED: { exit: exit.terminated, http: 499 },
} as const satisfies Record<string, ErrorRow>

export type ErrorCode = keyof typeof errorTable

const bySqlCode: ReadonlyMap<string, ErrorCode> = new Map(
  // The cast is true because Object.keys of a const object are exactly its keys.
  (Object.keys(errorTable) as ErrorCode[]).flatMap((code) => {
    const row: ErrorRow = errorTable[code]
    return (row.sql ?? []).map((sql): [string, ErrorCode] => [sql, code])
  }),
)

/** The error code for a SQLSTATE or PostgREST code: the exact one, else its class, else DB_ERROR. */
export function codeOfSql(sql: string): ErrorCode {
  return bySqlCode.get(sql) ?? bySqlCode.get(sql.slice(0, 2)) ?? 'DB_ERROR'
}

export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code)
}

/** The next command where nothing better is known. A command puts its own help in its place. */
export const anyHelp = 'tms help'

export type Problem = {
  readonly code: ErrorCode
  /** What happened, one sentence, no secrets and no personal data: it is printed and logged. */
  readonly what: string
  /** Why, as far as it is known. */
  readonly why: string
  /** The commands to type next, most useful first. */
  readonly next: readonly string[]
  /** When the same may succeed, in UTC, where that is known. */
  readonly againAt?: string | undefined
}

/** Every failure a person sees. Thrown where it is known, rendered in one place. */
export class TmsError extends Error {
  readonly code: ErrorCode
  readonly why: string
  readonly next: readonly string[]
  readonly againAt: string | undefined

  constructor(problem: Problem, options?: ErrorOptions) {
    super(problem.what, options)
    this.name = 'TmsError'
    this.code = problem.code
    this.why = problem.why
    this.next = problem.next
    this.againAt = problem.againAt
  }

  get exit(): ExitCode {
    return errorTable[this.code].exit
  }
}
