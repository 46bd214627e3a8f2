import { PGlite, types } from '@electric-sql/pglite'
import type { ServiceAccount } from '../connection.ts'
import type { ContractFunction } from '../contract.ts'
import type { Channel } from '../driver.ts'
import type { DurableFs } from './durable-fs.ts'
import { createUpkeep } from './upkeep.ts'

/** The one connection to the database. Everything runs one after the other; the engine sees to that. */
export type Session = {
  /** One transaction of the local user. Takes and gives JSON text. */
  call(fn: ContractFunction, args: string, as?: ServiceAccount): Promise<string>
  /** From here to `endAdministration` statements run as the superuser, in one transaction. */
  beginAdministration(): Promise<void>
  run(sql: string, parameters: readonly unknown[] | undefined): Promise<readonly Record<string, unknown>[]>
  endAdministration(outcome: 'commit' | 'rollback'): Promise<void>
  listen(channel: Channel): Promise<void>
  /** After each piece of work: whether `tidy` should be called. */
  tidyDue(bytes: number): Promise<boolean>
  /** One step of upkeep; true while there is more of it. */
  tidy(): Promise<boolean>
  /** Spends at most about `tidyMs` on upkeep: short commands never work long enough for it to become due before. */
  close(tidyMs: number): Promise<void>
}

export type SessionOptions = {
  /** Over the data directory. PGlite makes a new database (2.5 s) in a directory that holds none: look before. */
  readonly fs: DurableFs
  readonly localUser: string
  readonly onSignal: (channel: Channel) => void
}

const settings = {
  wal_sync_method: 'fsync',
  min_wal_size: '32MB',
  max_wal_size: '64MB',
  // 128 MB and 100 connections cost 60 ms of each opening and 110 MB of memory; the system caches the files anyway.
  shared_buffers: '32MB',
  max_connections: '10',
}

/** Back to the superuser that initdb made. `reset session authorization` does nothing in PGlite's single-user mode. */
const leave = 'set session authorization postgres'

export async function openSession(options: SessionOptions): Promise<Session> {
  const { fs, localUser } = options
  const db = await PGlite.create({
    fs,
    startParams: [
      // -F would turn fsync off. Without it every commit is one fsync: 2,257 commits/s measured, against 3,500.
      ...PGlite.defaultStartParams.filter((parameter) => parameter !== '-F'),
      ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    ],
    // What a Date or a BigInt would lose stays text: the same values as from the other drivers.
    parsers: Object.fromEntries(
      [types.INT8, types.NUMERIC, types.DATE, types.TIME, types.TIMESTAMP, types.TIMESTAMPTZ].map((oid) => [
        oid,
        (text: string) => text,
      ]),
    ),
  })
  const upkeep = createUpkeep(db)
  let attachProblem: Error | undefined
  let caller = ''

  // The cast is true because `listen` below is the only one who listens, and to channels only.
  db.onNotification((name) => options.onSignal(name.slice('tms_'.length) as Channel))

  /**
   * Becomes the local user. The identity rests on two things that only the superuser can do before: `session_user`,
   * which no function can change, and `tms.local_user`, set here from the operating system's answer.
   */
  async function enter(): Promise<void> {
    try {
      await db.exec(`${leave}; reset role; reset all`)
      await prepareRole()
      await db.query(`select set_config('tms.local_user', $1, false)`, [localUser])
      caller = localUser
      await db.exec('set session authorization tms_local')
    } catch (error) {
      // Not an SQL error any more: a session that may still be the superuser's must not serve another call.
      throw new Error(`the session of the local user could not be entered: ${messageOf(error)}`, { cause: error })
    }
  }

  async function prepareRole(): Promise<void> {
    const { rows } = await db.query<{ local: boolean; caller: boolean; member: boolean; attach: boolean }>(`
      select to_regrole('tms_local') is not null as local,
             to_regrole('tms_caller') is not null as caller,
             exists (
               select from pg_auth_members
               where roleid = to_regrole('tms_caller') and member = to_regrole('tms_local')
             ) as member,
             to_regprocedure('tms._attach_local(text)') is not null as attach`)
    const found = rows[0]
    if (!found?.local) await db.exec('create role tms_local nologin')
    if (found?.caller && !found.member) await db.exec('grant tms_caller to tms_local')
    attachProblem = undefined
    if (!found?.attach) return
    try {
      await db.query('select tms._attach_local($1)', [localUser])
    } catch (error) {
      // The calls fail with it; administration must still work, for it may be what repairs this.
      attachProblem = error instanceof Error ? error : new Error(String(error))
    }
  }

  await enter()

  return {
    async call(fn, args, as) {
      if (attachProblem !== undefined) throw attachProblem
      const who = as === undefined ? localUser : `account:${as}`
      if (who !== caller) {
        await db.query(`select set_config('tms.local_user', $1, false)`, [who])
        caller = who
      }
      const { rows } = await db.query<{ answer: string | null }>(`select tms.${fn}($1::jsonb)::text as answer`, [args])
      // After a crash inside, PGlite gives no error and no row; only an answer that is there is one.
      if (!rows[0]) throw new Error('the database gave no answer')
      return rows[0].answer ?? 'null'
    },

    async beginAdministration() {
      try {
        await db.exec(leave)
        await db.exec('begin')
      } catch (error) {
        await enter()
        throw error
      }
    },

    async run(sql, parameters) {
      if (parameters && parameters.length > 0) {
        return (await db.query<Record<string, unknown>>(sql, [...parameters])).rows
      }
      const results = await db.exec(sql)
      return results.at(-1)?.rows ?? []
    },

    async endAdministration(outcome) {
      try {
        const [ended] = await db.exec(outcome)
        // Postgres answers the commit of a transaction with a swallowed error with a rollback, and calls it success.
        if (ended?.command !== outcome.toUpperCase()) {
          throw Object.assign(new Error('a statement failed, so nothing was committed'), {
            code: '25P02',
            severity: 'ERROR',
          })
        }
      } finally {
        // A commit that fails leaves no transaction; a statement of ours that opened another one would.
        if (db.Module._IsTransactionBlock() !== 0) await db.exec('rollback')
        await enter()
      }
    },

    async listen(channel) {
      await db.exec(`listen tms_${channel}`)
    },

    tidyDue: (bytes) => upkeep.due(bytes),

    async tidy() {
      await db.exec(leave)
      try {
        return await upkeep.step()
      } finally {
        await enter()
      }
    },

    async close(tidyMs) {
      // Upkeep that fails is due again; the database must be closed all the same.
      if (tidyMs > 0) await tidyFor(tidyMs).catch(() => undefined)
      await db.close()
    },
  }

  async function tidyFor(milliseconds: number): Promise<void> {
    const until = Date.now() + milliseconds
    await db.exec(leave)
    while (Date.now() < until && (await upkeep.step()));
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
