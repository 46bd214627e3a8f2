import type { PGlite } from '@electric-sql/pglite'
import * as z from 'zod'

/**
 * What the checkpointer and autovacuum do elsewhere. PGlite has neither: 337 MB of log and 677k dead tuples stayed.
 *
 * Both are driven by the log's position, which counts everything that was ever written. Not by Postgres' statistics:
 * PGlite forgets those at each end of the process, so a database used by one-shot commands would never be vacuumed.
 * And not by idleness: a fleet that polls is never idle.
 */
export type Upkeep = {
  /** To be told of each piece of work with the bytes that it brought; true when a step should follow. */
  due(bytes: number): Promise<boolean>
  /** One step, as superuser and outside a transaction: a checkpoint or the vacuum of one table. True while more is due. */
  step(): Promise<boolean>
}

const megabyte = 1024 * 1024
/** Two segments of the log. */
const checkpointAfter = 32 * megabyte
const vacuumAfter = 64 * megabyte
/** Asking for the log's position costs 0.3 ms, so it is asked once per this much work. */
const lookAfter = 2 * megabyte
/** What a small call may write, full-page images included. */
const assumedPerCall = 32 * 1024

/** Kept as the comment of role tms_local: it survives the process, and a restored database brings its own. */
const markSchema = z.object({
  /** Where the log was when the last complete round over all tables began. */
  round: z.string(),
  /** Where it was when the unfinished round began, and the last table it did. */
  begun: z.string().nullable(),
  table: z.number(),
})

export function createUpkeep(db: PGlite): Upkeep {
  let checkpointAt: string | undefined
  let unseen = 0

  async function position(since: string): Promise<{ now: string; written: number }> {
    const { rows } = await db.query<{ now: string; written: number }>(
      `select pg_current_wal_insert_lsn()::text as now,
              pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::pg_lsn)::float8 as written`,
      [since],
    )
    return rows[0] ?? { now: since, written: 0 }
  }

  /** The redo position of the last checkpoint, which may be an earlier process's. */
  async function lastCheckpoint(): Promise<string> {
    if (checkpointAt === undefined) {
      const { rows } = await db.query<{ lsn: string }>('select redo_lsn::text as lsn from pg_control_checkpoint()')
      checkpointAt = rows[0]?.lsn ?? '0/0'
    }
    return checkpointAt
  }

  async function mark(): Promise<z.infer<typeof markSchema>> {
    const { rows } = await db.query<{ text: string | null }>(
      `select shobj_description(to_regrole('tms_local'), 'pg_authid') as text`,
    )
    try {
      return markSchema.parse(JSON.parse(rows[0]?.text ?? ''))
    } catch {
      return { round: '0/0', begun: null, table: 0 }
    }
  }

  async function setMark(value: z.infer<typeof markSchema>): Promise<void> {
    await db.exec(`comment on role tms_local is '${JSON.stringify(value)}'`)
  }

  async function stepDue(): Promise<'checkpoint' | 'vacuum' | undefined> {
    if ((await position(await lastCheckpoint())).written > checkpointAfter) return 'checkpoint'
    const { round, begun } = await mark()
    return begun !== null || (await position(round)).written > vacuumAfter ? 'vacuum' : undefined
  }

  async function vacuumNext(): Promise<void> {
    const { round, begun, table } = await mark()
    const start = begun ?? (await position(round)).now
    const { rows } = await db.query<{ oid: number; name: string }>(
      `select c.oid::int8::float8 as oid, format('%I.%I', n.nspname, c.relname) as name
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where c.relkind in ('r', 'm') and c.oid > $1::float8::int8::oid
       order by c.oid limit 1`,
      [table],
    )
    const next = rows[0]
    if (!next) return setMark({ round: start, begun: null, table: 0 })
    // Marked before, so that a table that can't be vacuumed doesn't keep the others from their turn.
    await setMark({ round, begun: start, table: next.oid })
    await db.exec(`vacuum (analyze) ${next.name}`)
  }

  return {
    async due(bytes) {
      unseen += assumedPerCall + bytes
      if (unseen < lookAfter) return false
      unseen = 0
      return (await stepDue()) !== undefined
    },
    async step() {
      const due = await stepDue()
      if (due === 'checkpoint') {
        await db.exec('checkpoint')
        checkpointAt = undefined
      } else if (due === 'vacuum') {
        await vacuumNext()
      }
      return due !== undefined
    },
  }
}
