import pg from 'pg'
import type { ErrorCode } from '../../errors.ts'
import { TmsError } from '../../errors.ts'
import { databaseError, placeIn } from '../database-error.ts'
import type { NetworkFailure } from '../network.ts'
import { networkFailure } from '../network.ts'
import { look, mayHaveHappened, TimeUp } from '../patience.ts'
import type { Address } from './address.ts'

/** Messages of `pg` itself: it gives them no codes. */
const said = {
  lost: /^(Connection terminated|Client has encountered a connection error|Client was closed)/,
  noTls: /^The server does not support SSL/,
  oddTls: /^There was an error establishing an SSL connection/,
  noPassword: /client password must be a/,
  connectTimeout: /^(timeout expired|Connection terminated due to connection timeout)/,
  poolTimeout: /^timeout exceeded when trying to connect/,
}

/** The connection was there and is gone: the same call on another connection may work. */
export function isLost(error: unknown): boolean {
  if (error instanceof pg.DatabaseError) return /^(08|57P0[123])/.test(error.code ?? '')
  if (!(error instanceof Error)) return false
  const kind = networkFailure(error)?.kind
  return said.lost.test(error.message) || (kind !== undefined && kind !== 'certificate' && kind !== 'tls')
}

/** The server understood and refuses for the moment only: it starts, it is full, or two transactions met. */
export function isPassing(error: unknown): boolean {
  return error instanceof pg.DatabaseError && /^(57P0[123]|53300|40001|40P01)$/.test(error.code ?? '')
}

export function saysNoTls(error: unknown): boolean {
  return error instanceof Error && said.noTls.test(error.message)
}

/** pgbouncer accepts only the startup parameters it knows how to restore. */
export function saysStartupParameter(error: unknown): boolean {
  return error instanceof pg.DatabaseError && /unsupported startup parameter/.test(error.message)
}

/** Why there is no connection. `reached`: TCP worked in the last attempt. */
export function connectError(error: unknown, address: Address, limitMs: number, reached: boolean): unknown {
  if (!(error instanceof Error) || error instanceof TmsError) return error
  const { host, port, database, user } = address
  const probe = `pg_isready -h ${host} -p ${port}`
  const trouble = (code: ErrorCode, what: string, why: string, next: readonly string[]): TmsError =>
    new TmsError({ code, what, why, next }, { cause: error })

  if (error instanceof pg.DatabaseError) return rejected(error, address, trouble)
  if (said.poolTimeout.test(error.message)) return allBusy(address, limitMs)
  if (said.noPassword.test(error.message)) {
    return trouble(
      'DB_AUTH_FAILED',
      `The server at ${address.name} wants a password for ${user}, and none is set.`,
      'The database URL holds none, and neither PGPASSWORD nor ~/.pgpass does.',
      ['tms config show', `export DATABASE_URL=postgres://${user}:PASSWORD@${host}:${port}/${database}`],
    )
  }
  if (saysNoTls(error)) {
    const why = 'The sslmode in the database URL demands it.'
    return trouble('DB_UNREACHABLE', `The server at ${address.name} does not offer TLS.`, why, [
      'tms config show',
      'turn on ssl in postgresql.conf, or use sslmode=prefer if the network is trusted',
    ])
  }
  const failure = networkFailure(error)
  const timedOut = said.connectTimeout.test(error.message) || error instanceof TimeUp
  if (said.oddTls.test(error.message) || failure?.kind === 'tls' || (reached && (timedOut || isLost(error)))) {
    const happened = timedOut
      ? `It accepted the connection and then said nothing for ${limitMs} ms.`
      : failure?.kind === 'cut' || said.lost.test(error.message)
        ? 'It closed the connection during the greeting.'
        : 'It answered with something else.'
    return trouble(
      'DB_UNREACHABLE',
      `What listens at ${host}:${port} does not answer as Postgres does.`,
      `${happened} The port may belong to another service, or a proxy may have no server behind it.`,
      [probe, 'tms config show'],
    )
  }
  if (timedOut) {
    const why = 'The host is down, the address is wrong, or a firewall drops the packets.'
    return trouble('DB_UNREACHABLE', `${address.name} did not answer within ${limitMs} ms.`, why, [
      probe,
      'tms config show',
    ])
  }
  if (failure) return trouble('DB_UNREACHABLE', whatOf(failure, address), failure.why, nextOf(failure, address, probe))
  return trouble('DB_UNREACHABLE', `No connection to ${address.name}.`, error.message, [probe, 'tms doctor'])
}

export function allBusy({ name }: Address, limitMs: number): TmsError {
  return new TmsError({
    code: 'DB_BUSY',
    what: `No connection to ${name} became free within ${limitMs} ms.`,
    why: 'Every connection of this process was busy for the whole time.',
    next: ['tms doctor'],
  })
}

function whatOf(failure: NetworkFailure, { name, host }: Address): string {
  switch (failure.kind) {
    case 'dns':
      return `The host name ${host} cannot be resolved.`
    case 'certificate':
      return `The certificate of the server at ${name} is not acceptable.`
    default:
      return `No connection to ${name}.`
  }
}

function nextOf(failure: NetworkFailure, { host, port }: Address, probe: string): readonly string[] {
  switch (failure.kind) {
    case 'dns':
      return [`getent hosts ${host}`, 'tms config show']
    case 'certificate':
      return [
        `openssl s_client -starttls postgres -connect ${host}:${port} -showcerts`,
        'add sslrootcert=FILE with the certificate of the authority to the database URL',
        'tms config show',
      ]
    default:
      return [probe, 'tms config show']
  }
}

function rejected(
  error: pg.DatabaseError,
  { name, host, port, database, user }: Address,
  trouble: (code: ErrorCode, what: string, why: string, next: readonly string[]) => TmsError,
): TmsError {
  const admin = `psql -h ${host} -p ${port} -d postgres`
  const { code = '', message } = error
  // pgbouncer says these with 08P01, which to Postgres is a broken protocol.
  if (code === '28P01' || /password authentication failed|no such user|SASL authentication failed/.test(message)) {
    const why = 'The password is wrong, has expired, or there is no such login: the server does not say which.'
    return trouble('DB_AUTH_FAILED', `The server at ${name} did not accept the password of ${user}.`, why, [
      'tms config show',
      `${admin} -c '\\password ${user}'`,
    ])
  }
  if (code === '28000' && /pg_hba\.conf/.test(message)) {
    // "no encryption" is the server's word for the connection it saw.
    const plain = /no encryption|SSL off/.test(message)
    return trouble(
      'DB_AUTH_FAILED',
      `The server at ${name} does not let ${user} in from here.`,
      plain
        ? 'No line of its pg_hba.conf allows this login from this address without TLS.'
        : 'No line of its pg_hba.conf allows this login from this address.',
      [...(plain ? ['use sslmode=require in the database URL'] : []), `${admin} -c 'table pg_hba_file_rules'`],
    )
  }
  if (code === '28000') {
    const why = /does not exist/.test(message) ? 'There is no such login.' : 'It may not log in.'
    return trouble('DB_AUTH_FAILED', `The server at ${name} does not accept ${user}.`, why, [`${admin} -c '\\du'`])
  }
  if (code === '3D000' || /no such database/.test(message)) {
    const why = 'The name is wrong, or the database has not been created yet.'
    return trouble('DB_AUTH_FAILED', `There is no database ${database} at ${host}:${port}.`, why, [
      `${admin} -l`,
      `createdb -h ${host} -p ${port} ${database}`,
    ])
  }
  if (code === '53300') {
    const why = 'The limit of the server, of the database or of this login is reached.'
    return trouble('DB_BUSY', `The server at ${name} has no connection left for ${user}.`, why, [
      `${admin} -c 'select usename, count(*) from pg_stat_activity group by 1'`,
    ])
  }
  if (code.startsWith('57P')) {
    return trouble('DB_UNREACHABLE', `The server at ${name} is starting or shutting down.`, `It says: ${message}.`, [
      `pg_isready -h ${host} -p ${port}`,
    ])
  }
  return databaseError({ code, message }, `The server at ${name} refused the connection`, error)
}

/** Why a call on a connection failed. */
export function callError(error: unknown, doing: string, address: Address, limitMs: number): unknown {
  if (error instanceof TmsError || !(error instanceof Error)) return error
  const { name } = address
  if (error instanceof TimeUp) {
    return new TmsError({
      code: 'DB_TIMEOUT',
      what: `${name} did not answer ${doing} within ${limitMs} ms.`,
      why: `The server or the network hangs. ${mayHaveHappened}`,
      next: ['tms doctor', look],
    })
  }
  if (error instanceof pg.DatabaseError && !isLost(error)) {
    const { code = '', message, detail, hint } = error
    return databaseError({ code, message, detail, hint, place: placeIn(error) }, doing, error)
  }
  if (!isLost(error)) return error
  return new TmsError(
    {
      code: 'DB_UNREACHABLE',
      what: `The connection to ${name} was lost during ${doing}.`,
      why: `The server or something between cut it. ${mayHaveHappened}`,
      next: [`pg_isready -h ${address.host} -p ${address.port}`, 'tms doctor', look],
    },
    { cause: error },
  )
}
