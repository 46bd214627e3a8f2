import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { serviceAccounts, type ServiceAccount } from '../../src/drivers/connection.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { openEmbedded } from '../../src/drivers/embedded/driver.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { openSupabase } from '../../src/drivers/supabase/driver.ts'
import { query, type Database, type Postgres } from '../servers/postgres.ts'
import { startPostgrest, type Postgrest } from '../servers/postgrest.ts'
import { makeEmbedded, startSchema } from '../servers/schema.ts'

/** A database with the schema, and a way to be anybody in it, through one of the drivers. */
export type Subject = {
  readonly name: 'embedded' | 'postgres' | 'supabase'
  /** Opens a driver as the super_admin. */
  operator(): Promise<Driver>
  /** How `who` is recognised; makes the login where there must be one. */
  credential(who: string): Promise<{ kind: 'postgres' | 'jwt' | 'local'; name: string }>
  /** Gives a service account a credential of this driver's kind and returns its name. */
  account(account: string): Promise<string>
  /** Opens a driver as whoever has this credential. */
  as(credential: string): Promise<Driver>
  /** Runs SQL as somebody who may do anything: for looking behind the contract, and for switching protections off. */
  sql(text: string, parameters?: unknown[]): Promise<Record<string, unknown>[]>
  stop(): Promise<void>
}

export async function embeddedSubject(): Promise<Subject> {
  const { directory, remove } = await embeddedFolder()
  const connection = { driver: 'embedded', directory, create: false, callTimeoutMs } as const
  const as = (credential: string) => {
    const account = serviceAccounts.find((name) => credential === `account:${name}`)
    return account === undefined
      ? openEmbedded(connection, { localUser: credential })
      : openEmbedded({ ...connection, account }, { localUser: 'operator' })
  }
  const operator = () => as('operator')
  const sql = async (text: string, parameters?: unknown[]) => {
    const driver = await operator()
    try {
      return [...((await driver.administration?.transaction((run) => run(text, parameters))) ?? [])]
    } finally {
      await driver.close()
    }
  }
  return {
    name: 'embedded',
    operator,
    as,
    sql,
    credential: async (who) => ({ kind: 'local', name: who }),
    account: async (account) => `account:${account}`,
    stop: remove,
  }
}

/**
 * The same, opened once for everybody: each opening costs 0.7 s of a processor, and compiles every function anew. The owner calls
 * in the name of whoever is meant, where it steps down to a service account otherwise; over its socket nobody else can be named.
 */
export async function embeddedOnce(): Promise<Subject> {
  const { directory, remove } = await embeddedFolder()
  let caller: string | undefined
  const owner = await openEmbedded(
    {
      driver: 'embedded',
      directory,
      create: false,
      callTimeoutMs,
      get account() {
        // Not true of people, nor of the operator, who has none: whoever this names is whom the call is made for.
        return caller as ServiceAccount
      },
    },
    { localUser: 'operator' },
  )
  let turn: Promise<unknown> = Promise.resolve()
  const as = async (credential: string): Promise<Driver> => ({
    target: owner.target,
    ...(owner.administration ? { administration: owner.administration } : {}),
    listen: (channel, onSignal) => owner.listen(channel, onSignal),
    call: (fn, args, options) => {
      const answer = turn.then(() => {
        caller = credential === 'operator' ? undefined : credential.slice('account:'.length)
        return owner.call(fn, args, options)
      })
      turn = answer.catch(() => undefined)
      return answer
    },
    close: async () => undefined,
  })
  return {
    name: 'embedded',
    operator: () => as('operator'),
    as,
    sql: async (text, parameters) => [
      ...((await owner.administration?.transaction((run) => run(text, parameters))) ?? []),
    ],
    credential: async (who) => ({ kind: 'local', name: `account:${who}` }),
    account: async (account) => `account:${account}`,
    stop: async () => {
      await owner.close()
      await remove()
    },
  }
}

async function embeddedFolder(): Promise<{ directory: string; remove: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'tms-contract-'))
  const directory = join(folder, '.tms')
  await makeEmbedded(directory)
  return { directory, remove: () => rm(folder, { recursive: true, force: true }) }
}

const callTimeoutMs = 20_000
const times = { connectTimeoutMs: 10_000, callTimeoutMs }

export async function postgresSubject(): Promise<Subject> {
  const { server, database } = await startSchema()
  await query(database.url, `select tms._bootstrap('postgres', session_user::text, 'operator@example.com')`)
  const passwords = new Map<string, string>()
  const open = (url: string) => openPostgres({ driver: 'postgres', url, ...times })
  const login = async (name: string) => {
    const password = randomBytes(12).toString('hex')
    passwords.set(name, password)
    await query(
      database.superuserUrl,
      `create role "${name}" login password '${password}' connection limit 20 in role tms_caller`,
    )
    return name
  }
  return {
    name: 'postgres',
    operator: () => open(database.url),
    as: (name) => open(database.urlAs(name, passwords.get(name) ?? '')),
    credential: async (who) => ({ kind: 'postgres', name: await login(`${who}_${randomBytes(3).toString('hex')}`) }),
    account: async (account) =>
      rotate(
        () => open(database.url),
        account,
        'postgres',
        await login(`${account}_${randomBytes(3).toString('hex')}`),
      ),
    sql: (text, parameters) => query(database.superuserUrl, text, parameters),
    stop: () => server.stop(),
  }
}

export type SupabaseSubject = Subject & {
  readonly server: Postgres
  readonly database: Database
  readonly postgrest: Postgrest
}

export async function supabaseSubject(): Promise<SupabaseSubject> {
  const { server, database } = await startSchema({ apiRoles: true })
  const operatorSub = randomUUID()
  await query(database.url, `select tms._bootstrap('jwt', $1, 'operator@example.com')`, [operatorSub])
  const postgrest = await startPostgrest(database)
  const as = (sub: string) =>
    openSupabase({
      driver: 'supabase',
      url: postgrest.url,
      key: postgrest.anonKey,
      token: postgrest.tokenFor(sub),
      callTimeoutMs: 20_000,
      pollMs: 200,
    })
  const operator = () => as(operatorSub)
  return {
    name: 'supabase',
    server,
    database,
    postgrest,
    operator,
    as,
    credential: async () => ({ kind: 'jwt', name: randomUUID() }),
    account: (account) => rotate(operator, account, 'jwt', randomUUID()),
    sql: (text, parameters) => query(database.superuserUrl, text, parameters),
    stop: async () => {
      await postgrest.stop()
      await server.stop()
    },
  }
}

/** SQL while `driver` is open: on the embedded database it owns the folder, and somebody else would have to take its place. */
export const sqlBeside =
  (subject: Subject, driver: Driver): Subject['sql'] =>
  async (text, parameters) =>
    subject.name === 'embedded'
      ? [...((await driver.administration?.transaction((run) => run(text, parameters))) ?? [])]
      : subject.sql(text, parameters)

async function rotate(
  operator: () => Promise<Driver>,
  account: string,
  kind: 'postgres' | 'jwt',
  name: string,
): Promise<string> {
  const driver = await operator()
  try {
    granted(await driver.call('accounts_rotate', { request_id: randomUUID(), account, kind, name, overlap_seconds: 0 }))
    return name
  } finally {
    await driver.close()
  }
}

export const subjects = { embedded: embeddedSubject, postgres: postgresSubject, supabase: supabaseSubject } as const
