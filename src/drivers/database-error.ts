import type { ErrorCode, Problem } from '../errors.ts'
import { anyHelp, TmsError, codeOfSql } from '../errors.ts'

/** What Postgres says about an error, directly or through PostgREST. */
export type DatabaseProblem = {
  readonly code: string
  readonly message: string
  readonly detail?: string | null | undefined
  readonly hint?: string | null | undefined
  readonly place?: SqlPlace | undefined
}

/** Where in a statement that a block of SQL ran the database found what is wrong; characters, from 1. Never shown: a statement holds values. */
export type SqlPlace = { readonly statement: string; readonly position: number }

/** From the fields of Postgres' message, which the client libraries call alike. */
export function placeIn(error: object): SqlPlace | undefined {
  // The cast is true of every object: each of the two may be anything or not be there.
  const { internalQuery: statement, internalPosition } = error as {
    internalQuery?: unknown
    internalPosition?: unknown
  }
  const position = Number(internalPosition)
  return typeof statement === 'string' && Number.isSafeInteger(position) && position > 0
    ? { statement, position }
    : undefined
}

/** An error at a known place of a statement. */
export class SqlError extends TmsError {
  readonly place: SqlPlace

  constructor(problem: Problem, place: SqlPlace, options?: ErrorOptions) {
    super(problem, options)
    this.place = place
  }
}

const advice: Partial<Record<ErrorCode, { why: string; next: readonly string[] }>> = {
  SCHEMA_ABSENT: { why: 'Nobody has set up tms in this database yet.', next: ['tms init', 'tms db push'] },
  SCHEMA_OLDER: { why: 'The schema in the database is older than this tms.', next: ['tms db status', 'tms db push'] },
  ROLE_DENIED: { why: 'This login may not do that.', next: ['tms whoami', 'tms users list'] },
  INPUT_INVALID: { why: 'The database does not accept this value.', next: [anyHelp] },
  DB_READ_ONLY: {
    why: 'It is a replica, or it has been set to read-only.',
    next: ['tms config show', 'tms doctor'],
  },
  DB_TIMEOUT: {
    why: 'It took longer than the time limit, or waited too long for a lock. Nothing was changed.',
    next: ['tms doctor'],
  },
  DB_BUSY: { why: 'Too much is going on there at the moment.', next: ['tms doctor'] },
  DB_FULL: { why: 'The server has run out of disk, memory or another resource.', next: ['tms doctor'] },
  DB_UNREACHABLE: { why: 'The server is starting, stopping or has ended this session.', next: ['tms doctor'] },
  TOKEN_REJECTED: { why: 'It has expired, or another key signed it.', next: ['tms config show', 'tms whoami'] },
}

/** A call that the database answered with an error. `tms.` functions raise TM…, with the reason in detail and hint. */
export function databaseError(problem: DatabaseProblem, doing: string, cause?: unknown): TmsError {
  const code = codeOfSql(problem.code)
  const ours = problem.code.startsWith('TM')
  const { why, next } = advice[code] ?? { why: `The database reports error ${problem.code}.`, next: ['tms doctor'] }
  const said: Problem = {
    code,
    what: ours ? problem.message : `${doing}: ${withoutValues(problem)}`,
    // Details are ours alone: Postgres puts whole rows into them.
    why: (ours && problem.detail) || why,
    next: ours && problem.hint ? problem.hint.split('\n') : next,
  }
  return problem.place === undefined ? new TmsError(said, { cause }) : new SqlError(said, problem.place, { cause })
}

/** Messages about data and about syntax quote what was sent, which may be a password or somebody's name. */
function withoutValues({ code, message }: DatabaseProblem): string {
  return code.startsWith('22') || code === '42601' ? message.replace(/"[^"]*"?/g, '"…"') : message
}

export function notAFunction(name: string): TmsError {
  return new TmsError({
    code: 'BUG',
    what: `The contract has no function ${JSON.stringify(name).slice(0, 80)}.`,
    why: 'Only the functions of the contract can be called.',
    next: ['TMS_DEBUG=1 tms doctor'],
  })
}

export function wasClosed(name: string): TmsError {
  return new TmsError({
    code: 'DB_UNREACHABLE',
    what: `The connection to ${name} has been closed.`,
    why: 'This process is ending.',
    next: ['tms doctor'],
  })
}
