import { randomBytes, randomUUID } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import type { AgentPolicy } from '../../../src/drivers/contract/fleet.ts'
import { openPostgres } from '../../../src/drivers/postgres/driver.ts'
import { granted } from '../../../src/drivers/refusal.ts'
import type { Subject } from '../../contract/subjects.ts'
import { policy, readyFleet, type Fleet } from '../../fleet/fleet.ts'
import { query, type Database, type Postgres } from '../../servers/postgres.ts'
import { startProcess, until, type ServerProcess } from '../../servers/process.ts'
import { startSchema } from '../../servers/schema.ts'

/** A server of its own that may be crashed, a fleet in it, guarded tables of a user, and logins to attack them with. */
export type Arena = {
  readonly server: Postgres
  readonly database: Database
  readonly fleet: Fleet
  /** The mapped service account `agents`, and a login that tms does not know. Both may write every table of `app`. */
  readonly workerUrl: string
  readonly unknownUrl: string
  /** A mapped person with rights on the tables of `app`. */
  readonly personUrl: string
  /** As superuser. */
  sql(text: string, parameters?: unknown[]): Promise<Record<string, unknown>[]>
  /** A connection that is closed when the arena stops. */
  connect(url: string): Promise<pg.Client>
  /** Ends the server at once, with SIGQUIT or -9, and starts it again. */
  crash(signal: 'SIGQUIT' | 'SIGKILL'): Promise<void>
  stop(): Promise<void>
}

export type ArenaOptions = {
  readonly settings?: Readonly<Record<string, string>>
  readonly policies?: readonly AgentPolicy[]
  readonly connections?: number
}

const times = { connectTimeoutMs: 10_000, callTimeoutMs: 20_000 }

/** Tables that a fleet works on, and what its `apply` may call: owned by somebody who isn't tms. */
const tables = `
  create role app_owner;
  create schema app authorization app_owner;
  set role app_owner;
  create table app.loads (id bigint generated always as identity, who text not null, n integer not null default 0);
  create table app.parts (k text not null, who text not null) partition by list (k);
  create table app.parts_a partition of app.parts for values in ('a');
  create table app.parts_b partition of app.parts for values in ('b');
  create table app.emptied (who text not null);
  create table app.free (who text not null);
  create table app.effects (task_id bigint not null, attempt integer, note text);
  select tms.guard_table('app.loads'), tms.guard_table('app.parts'), tms.guard_table('app.emptied');
  create function app.effect(args jsonb) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
  begin
    if args ? 'fail' then raise exception 'told to fail'; end if;
    insert into app.effects values ((args ->> 'task')::bigint, (args ->> 'attempt')::integer, args ->> 'note');
  end $$;
  create function app.member(args jsonb) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
  begin
    insert into app.effects values ((args ->> 'task')::bigint, null, tms.is_company_member((args ->> 'company')::uuid)::text);
  end $$;
  create function app.invoker(args jsonb) returns void language plpgsql as $$
  begin
    insert into app.effects values (0, null, current_user::text);
  end $$;
  grant usage on schema app to public;
  grant all on all tables in schema app to public;
  reset role;`

export async function startArena(options: ArenaOptions = {}): Promise<Arena> {
  const settings = { max_connections: '260', track_commit_timestamp: 'on', ...options.settings }
  const { server, database } = await startSchema({ own: true, settings })
  const sql = (text: string, parameters?: unknown[]) => query(database.superuserUrl, text, parameters)
  await query(database.url, `select tms._bootstrap('postgres', session_user::text, 'operator@example.com')`)
  await sql('grant usage on schema tms to public')
  await sql(tables)
  await sql('grant execute on function tms.is_company_member(uuid) to app_owner')

  const login = async (name: string, known: boolean): Promise<string> => {
    const password = randomBytes(12).toString('hex')
    await sql(`create role ${name} login password '${password}' connection limit ${options.connections ?? 200}`)
    await sql(`grant set on parameter session_replication_role to ${name}`)
    if (known) await sql(`grant tms_caller to ${name}`)
    return database.urlAs(name, password)
  }
  const urls = new Map<string, string>()
  const open = (url: string) => openPostgres({ driver: 'postgres', url, ...times })
  const subject: Subject = {
    name: 'postgres',
    operator: () => open(database.url),
    as: (name) => open(urls.get(name) ?? ''),
    credential: async (who) => {
      const name = `${who}_${randomBytes(3).toString('hex')}`
      urls.set(name, await login(name, true))
      return { kind: 'postgres', name }
    },
    account: async (account) => {
      const name = `${account}_${randomBytes(3).toString('hex')}`
      urls.set(name, await login(name, true))
      const operator = await open(database.url)
      granted(
        await operator.call('accounts_rotate', {
          request_id: randomUUID(),
          account,
          kind: 'postgres',
          name,
          overlap_seconds: 0,
        }),
      )
      await operator.close()
      return name
    },
    sql,
    stop: () => stopServer(),
  }
  const fleet = await readyFleet(subject, options.policies ?? [policy('demo', { apply: ['app.effect', 'app.member'] })])
  const workerUrl = [...urls.values()][0] ?? ''
  const unknownUrl = await login('stranger', false)
  const person = await subject.credential('person')
  granted(
    await fleet.operator.call('users_grant', {
      request_id: randomUUID(),
      principal: 'person@example.com',
      role: 'super_admin',
      credential: { kind: 'postgres', name: person.name },
    }),
  )

  let restarted: ServerProcess | undefined
  const clients: pg.Client[] = []
  const cluster = server.cluster
  if (!cluster) throw new Error('the arena needs a server of its own')
  const crash: Arena['crash'] = async (signal) => {
    // The folder's own record of how it was started.
    const [command = '', ...args] = (await readFile(join(cluster.data, 'postmaster.opts'), 'utf8'))
      .trim()
      .split(/ (?=")/)
      .map((word) => word.replace(/^"|"$/g, ''))
    const running = restarted ?? cluster
    running.kill(signal)
    await running.exited
    const user = cluster.user
    await until('Postgres is up again', async () => {
      const directory = await mkdtemp('/tmp/tms-pg-again-')
      if (user) execFileSync('chown', [`${user.uid}:${user.gid}`, directory])
      const again = startProcess({ command, args, directory, stopSignal: 'SIGQUIT', user })
      restarted = again
      for (;;) {
        // Backends of the killed server may still be going: it refuses to start until they are gone.
        if (!again.running()) {
          await again.stop()
          return false
        }
        const answers = await query(server.superuserUrl, 'select 1').then(
          () => true,
          () => false,
        )
        if (answers) return true
      }
    })
  }
  async function stopServer(): Promise<void> {
    for (const client of clients) await client.end().catch(() => undefined)
    if (restarted) await restarted.stop()
    await server.stop()
  }
  return {
    server,
    database,
    fleet,
    workerUrl,
    unknownUrl,
    personUrl: urls.get(person.name) ?? '',
    sql,
    crash,
    connect: async (url) => {
      const client = new pg.Client({ connectionString: url })
      // A terminated session is what many of these tests are about.
      client.on('error', () => undefined)
      await client.connect()
      clients.push(client)
      return client
    },
    stop: () => fleet.stop(),
  }
}

/** A contract function through a connection of one's own: inside of transactions, and without the driver's manners. */
export async function ask(client: pg.Client, fn: string, args: object): Promise<Answer> {
  const { rows } = await client.query<{ answer: Answer }>(`select tms.${fn}($1::jsonb) as answer`, [
    JSON.stringify(args),
  ])
  return rows[0]?.answer ?? {}
}
export type Answer = Record<string, unknown> & { refused?: { code: string; what: string; why: string } }

export async function resume(fleet: Fleet): Promise<void> {
  for (const step of ['prepare', 'lift'] as const) {
    granted(await fleet.operator.call('fence_resume', { request_id: randomUUID(), step, why: 'over' }))
  }
}

export const halt = async (fleet: Fleet, graceMs?: number) =>
  granted(
    await fleet.operator.call('fence_halt', { why: 'attack', ...(graceMs === undefined ? {} : { grace_ms: graceMs }) }),
  )

export function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN
}

/** A piece of a function's text and what takes its place. The function by its name, where that is the only one of the name. */
export type Edit = readonly [fn: string, from: string | RegExp, to: string]

/** Does something while protections are taken out of the SQL, and puts them back. */
export async function without(arena: Arena, edits: readonly Edit[], work: () => Promise<void>): Promise<void> {
  const undo: string[] = []
  try {
    for (const [fn, from, to] of edits) {
      const rows = await arena.sql(
        `select pg_get_functiondef(p.oid) as text from pg_proc p where p.pronamespace = 'tms'::regnamespace and p.proname = $1`,
        [fn],
      )
      const text = String(rows[0]?.['text'])
      const changed = text.replace(from, to)
      if (rows.length !== 1 || changed === text) throw new Error(`tms.${fn} no longer says ${String(from)}`)
      undo.push(text)
      await arena.sql(changed)
    }
    await work()
  } finally {
    for (const text of undo.reverse()) await arena.sql(text)
  }
}
