import { readFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import type { ConnectionOptions } from 'node:tls'
import { TmsError } from '../../errors.ts'

/** One Postgres server as a URL names it, taken apart and checked. */
export type Address = {
  readonly host: string
  readonly port: number
  readonly database: string
  readonly user: string
  /** Undefined: PGPASSWORD or ~/.pgpass, which `pg` looks up itself. */
  readonly password: string | undefined
  readonly tls: Tls
  /** `host:port/database`, for people. */
  readonly name: string
  /** `host/database`, what people type to consent. */
  readonly consentName: string
}

/**
 * What sslmode means to libpq, and so to psql on the same machine. `pg` by itself reads `require` as verify-full and
 * nothing as "no TLS"; its own reading is never used.
 */
type Tls = {
  /** `prefer`: with TLS when the server offers it, which stops nobody who can change packets. */
  readonly use: 'never' | 'prefer' | 'always'
  readonly options: ConnectionOptions
}

const sslModes = ['disable', 'allow', 'prefer', 'require', 'no-verify', 'verify-ca', 'verify-full'] as const
const sslParameters = ['sslmode', 'sslrootcert', 'sslcert', 'sslkey']

export function parseAddress(text: string): Address {
  const url = parseUrl(text)
  const parameter = (name: string): string | undefined => url.searchParams.get(name) ?? undefined
  // A misspelt `sslmod=verify-full` would connect without checking anything.
  const unknown = [...url.searchParams.keys()].find((name) => name.startsWith('ssl') && !sslParameters.includes(name))
  if (unknown !== undefined) {
    throw invalid(`It has the parameter ${unknown}; known are ${sslParameters.join(', ')}.`)
  }
  const decoded = (part: string): string => {
    try {
      return decodeURIComponent(part)
    } catch {
      throw invalid('A % in it is not followed by two hexadecimal digits; write a literal % as %25.')
    }
  }
  const host = parameter('host') ?? (decoded(url.hostname).replace(/^\[(.*)\]$/, '$1') || 'localhost')
  const port = Number(parameter('port') ?? (url.port === '' ? 5432 : url.port))
  if (!Number.isInteger(port) || port < 1 || port > 65_535) throw invalid('Its port is not a number from 1 to 65535.')
  const user = decoded(url.username) || userInfo().username
  const database = decoded(url.pathname.slice(1)) || user
  const shownHost = host.includes(':') ? `[${host}]` : host
  return {
    host,
    port,
    database,
    user,
    password: decoded(url.password) || undefined,
    // A socket in the file system has no network to protect against; servers refuse TLS there.
    tls: host.startsWith('/') ? { use: 'never', options: {} } : readTls(parameter),
    name: `${shownHost}:${port}/${database}`,
    // The port only where it says which of several servers is meant.
    consentName: `${host}${port === 5432 ? '' : `:${port}`}/${database}`,
  }
}

function parseUrl(text: string): URL {
  let url: URL
  try {
    // Without a host (a socket's folder follows as ?host=) it is a URL to libpq, but not to Node.
    url = new URL(text.replace(/^(\w+:\/\/[^/@]*)@\//, '$1@localhost/'))
  } catch {
    // Not as the cause: Node's error holds the text, and the text holds the password.
    throw invalid(
      'It cannot be taken apart. In a password the characters / ? # @ : % must be written as %2F %3F %23 ...',
    )
  }
  if (url.protocol !== 'postgres:' && url.protocol !== 'postgresql:') {
    throw invalid('It must start with postgres:// or postgresql://.')
  }
  return url
}

function readTls(parameter: (name: string) => string | undefined): Tls {
  const mode = parameter('sslmode') ?? 'prefer'
  if (!sslModes.some((known) => known === mode)) {
    throw invalid(`Its sslmode must be one of ${sslModes.filter((known) => known !== 'no-verify').join(', ')}.`)
  }
  if (mode === 'disable') return { use: 'never', options: {} }
  const rootFile = parameter('sslrootcert')
  const ownFile = parameter('sslcert')
  const keyFile = parameter('sslkey')
  const options: ConnectionOptions = {
    // As libpq: `require` with a root certificate checks against it.
    rejectUnauthorized: mode.startsWith('verify') || (mode === 'require' && rootFile !== undefined),
    // `system`, or none at all: the authorities Node trusts, NODE_EXTRA_CA_CERTS included.
    ...(rootFile === undefined || rootFile === 'system' ? {} : { ca: read(rootFile, 'sslrootcert') }),
    ...(ownFile === undefined ? {} : { cert: read(ownFile, 'sslcert') }),
    ...(keyFile === undefined ? {} : { key: read(keyFile, 'sslkey') }),
    ...(mode === 'verify-full' || rootFile === 'system' ? {} : { checkServerIdentity: () => undefined }),
  }
  return { use: mode === 'prefer' || mode === 'allow' ? 'prefer' : 'always', options }
}

function read(path: string, parameter: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new TmsError(
      {
        code: 'FILE_UNREADABLE',
        what: `The file that ${parameter} in the database URL names cannot be read: ${path}`,
        why: 'It is missing, or this user may not read it.',
        next: [`ls -l ${path}`, 'tms config show'],
      },
      { cause: error },
    )
  }
}

function invalid(why: string): TmsError {
  return new TmsError({
    code: 'CONFIG_INVALID',
    what: 'The database URL is not usable.',
    why,
    next: ['tms config show', 'export DATABASE_URL=postgres://USER:PASSWORD@HOST:5432/DATABASE'],
  })
}
