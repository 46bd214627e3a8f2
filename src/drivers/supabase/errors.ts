import type { ErrorCode } from '../../errors.ts'
import { anyHelp, TmsError, codeOfSql } from '../../errors.ts'
import type { SupabaseConnection } from '../connection.ts'
import type { DatabaseProblem } from '../database-error.ts'
import { databaseError } from '../database-error.ts'
import { networkFailure } from '../network.ts'
import { look, mayHaveHappened, TimeUp } from '../patience.ts'

export type Place = { readonly host: string; readonly url: string }

/** An answer that isn't 2xx. */
export class HttpFailure extends Error {
  readonly status: number
  readonly failure: Failure

  constructor(status: number, failure: Failure) {
    super(`HTTP ${status}`)
    this.status = status
    this.failure = failure
  }
}

export type Failure = {
  /** What PostgREST or Postgres says; undefined when something before them answered. */
  readonly problem: DatabaseProblem | undefined
  readonly retryAfterMs: number
}

export async function readFailure(response: Response): Promise<Failure> {
  const body: unknown = await response.json().catch(() => undefined)
  const seconds = Number(response.headers.get('retry-after'))
  return { problem: readProblem(body), retryAfterMs: seconds > 0 ? seconds * 1_000 : 0 }
}

function readProblem(body: unknown): DatabaseProblem | undefined {
  if (typeof body !== 'object' || body === null || !('code' in body) || !('message' in body)) return undefined
  const { code, message } = body
  if (typeof code !== 'string' || typeof message !== 'string') return undefined
  // When PostgREST loses the database in the middle it answers 400, and both are empty.
  if (code === '') return { code: '08006', message: 'PostgREST lost its connection to the database.' }
  const text = (name: 'details' | 'hint'): string | undefined => {
    const value: unknown = name in body ? Reflect.get(body, name) : undefined
    return typeof value === 'string' ? value : undefined
  }
  return { code, message, detail: text('details'), hint: text('hint') }
}

/** How long to wait before asking again, or undefined when there is no point. The request id makes it safe. */
export function mayAskAgain(error: unknown): number | undefined {
  if (error instanceof HttpFailure) {
    const { status, failure } = error
    if (failure.problem)
      return /^(08|57P0[123]|53300|40001|40P01|PGRST00[0-3])/.test(failure.problem.code) ? 0 : undefined
    return status === 429 || status === 502 || status === 503 || status === 504 ? failure.retryAfterMs : undefined
  }
  // A cut connection is also how a kept-alive one ends; refused, unknown and unroutable ones are said at once.
  return networkFailure(error)?.kind === 'cut' ? 0 : undefined
}

export function problemOf(error: unknown, fn: string, place: Place, limitMs: number): unknown {
  if (error instanceof TmsError || !(error instanceof Error)) return error
  const { host, url } = place
  const probe = `curl -sS -o /dev/null -w '%{http_code}\\n' ${url}/rest/v1/`
  const trouble = (code: ErrorCode, what: string, why: string, next: readonly string[]): TmsError =>
    new TmsError({ code, what, why, next }, { cause: error })

  if (error instanceof HttpFailure) {
    return error.failure.problem ? answered(error.failure.problem, fn, place) : unanswered(error.status, place, probe)
  }
  if (error instanceof TimeUp || error.name === 'AbortError') {
    const why = `The server or the network hangs. ${mayHaveHappened}`
    return trouble('DB_TIMEOUT', `${host} did not answer ${fn} within ${limitMs} ms.`, why, [probe, 'tms doctor', look])
  }
  const failure = networkFailure(error)
  if (failure) {
    const what = {
      dns: `The host name of ${url} cannot be resolved.`,
      certificate: `The certificate of ${host} is not acceptable.`,
      cut: `The connection to ${host} was lost during ${fn}.`,
    }
    const said = failure.kind in what ? what[failure.kind as keyof typeof what] : `No connection to ${host}.`
    if (failure.kind === 'cut') {
      return trouble('DB_UNREACHABLE', said, `${failure.why} ${mayHaveHappened}`, [probe, look])
    }
    return trouble('DB_UNREACHABLE', said, failure.why, [probe, 'tms config show'])
  }
  if (error.name === 'PostgrestError') {
    const why = 'Something between here and PostgREST answers for it: a proxy, or a sign-in page of the network.'
    return trouble('DB_UNREACHABLE', `${host} answered ${fn} with something that is not JSON.`, why, [probe])
  }
  if (error instanceof TypeError && error.message === 'fetch failed') {
    return trouble('DB_UNREACHABLE', `No connection to ${host}.`, 'The request failed below HTTP.', [
      probe,
      'tms doctor',
    ])
  }
  return error
}

/** PostgREST or Postgres behind it answered with an error. */
function answered(problem: DatabaseProblem, fn: string, { host }: Place): TmsError {
  if (problem.code === 'PGRST106') {
    return new TmsError({
      code: codeOfSql(problem.code),
      what: `${host} does not serve the schema tms.`,
      why: 'It is not among the exposed schemas of the project.',
      next: ['add tms to the exposed schemas: project settings, API', 'tms db export --supabase'],
    })
  }
  if (problem.code === 'PGRST202') {
    return new TmsError({
      code: codeOfSql(problem.code),
      what: `${host} has no function tms.${fn}.`,
      why: 'The schema in the database is older than this tms, or PostgREST has not read the new one yet.',
      next: ['tms db status', 'tms db export --supabase', `psql -c "notify pgrst, 'reload schema'"`],
    })
  }
  // Why a token is not taken never depends on values in it, so the message can be shown.
  return databaseError(problem, codeOfSql(problem.code) === 'TOKEN_REJECTED' ? 'The token was not accepted' : fn)
}

/** Something before PostgREST answered: Supabase's gateway, a load balancer, a proxy. */
function unanswered(status: number, { host, url }: Place, probe: string): TmsError {
  const trouble = (code: ErrorCode, what: string, why: string, next: readonly string[]): TmsError =>
    new TmsError({ code, what, why, next })
  if (status === 401 || status === 403) {
    const why = 'The API key or the token is wrong, has been revoked, or belongs to another project.'
    return trouble('TOKEN_REJECTED', `${host} did not accept the API key (HTTP ${status}).`, why, ['tms config show'])
  }
  if (status === 404 || (status >= 300 && status < 400)) {
    const why = 'It should be the URL of the project, without a path: https://PROJECT.supabase.co'
    return trouble('DB_UNREACHABLE', `There is no PostgREST below ${url} (HTTP ${status}).`, why, [
      'tms config show',
      probe,
    ])
  }
  if (status === 413) {
    return trouble('INPUT_INVALID', `${host} does not accept requests this large.`, 'A limit of the gateway.', [
      anyHelp,
    ])
  }
  if (status === 429) {
    const why = 'Too many requests from here in a short time.'
    return trouble('DB_BUSY', `${host} asks to come back later (HTTP 429).`, why, ['tms doctor'])
  }
  if (status === 540) {
    const why = 'The project is paused.'
    return trouble('DB_UNREACHABLE', `${host} serves no database (HTTP 540).`, why, [
      'restore the project in the dashboard',
    ])
  }
  if (status === 504) {
    const why = 'The gateway waited for the database in vain. Asking again does not do anything twice.'
    return trouble('DB_TIMEOUT', `${host} did not answer in time (HTTP 504).`, why, [probe, 'tms doctor'])
  }
  const why = 'The gateway answers, but what is behind it does not.'
  return trouble('DB_UNREACHABLE', `${host} is not working (HTTP ${status}).`, why, [probe, 'tms doctor'])
}

/** Says early, and without the values, what fetch would say late and with them. */
export function usable({ url, key, token }: SupabaseConnection): URL {
  const invalid = (what: string, why: string): TmsError =>
    new TmsError({ code: 'CONFIG_INVALID', what, why, next: ['tms config show'] })
  let parsed: URL
  try {
    parsed = new URL(url)
  } catch {
    throw invalid('The Supabase URL is not usable.', 'It must look like https://PROJECT.supabase.co')
  }
  if (parsed.protocol !== 'https:' && parsed.protocol !== 'http:') {
    throw invalid('The Supabase URL is not usable.', 'It must start with https://')
  }
  if (parsed.username !== '' || parsed.password !== '') {
    throw invalid(
      'The Supabase URL is not usable.',
      'It holds a user name or a password; the key belongs into its own setting.',
    )
  }
  // A line break would end the header and start one of the attacker's choice.
  for (const [name, value] of Object.entries({ key, ...(token === undefined ? {} : { token }) })) {
    if (!/^[\x21-\x7e]+$/.test(value)) {
      throw invalid(
        `The Supabase ${name} is not usable.`,
        'It is empty, or holds spaces, line breaks or other characters no key has.',
      )
    }
  }
  return parsed
}
