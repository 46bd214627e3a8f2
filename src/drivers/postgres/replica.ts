import type { ContractFunction } from '../contract.ts'
import type { Limits } from '../patience.ts'
import { limitsFor, timeLeft } from '../patience.ts'
import type { Endpoint } from './endpoint.ts'

const greatestLagSeconds = 5
const measureEveryMs = 1_000
/** A replica that is away must cost a call little: it is an offer, and the primary is there. */
const measureWithinMs = 1_000

/** A replica that answers when it is fresh enough, and otherwise gives undefined. It never fails. */
export type Replica = {
  answer(fn: ContractFunction, args: string, limits: Limits): Promise<unknown>
  close(): Promise<void>
}

/** Which data this is, and how far the primary is: the position in its WAL, and its own clock. */
const primaryPosition = `
  select system_identifier::text || '/' || pg_catalog.current_database() as data,
    pg_catalog.pg_current_wal_lsn()::text as position,
    extract(epoch from pg_catalog.clock_timestamp())::text as now
  from pg_catalog.pg_control_system()`

/**
 * Behind by at most so many seconds. Looking at the replica alone can't tell: its last replayed commit is old on an idle
 * primary, and a replica that was cut off has replayed all it received. So what it replayed is compared with where the
 * primary was a moment before, and only when that is missing, the age of its last commit by the primary's clock counts:
 * everything older than that commit is there.
 */
const replicaLag = `
  select system_identifier::text || '/' || pg_catalog.current_database() as data,
    case
      when not pg_catalog.pg_is_in_recovery() then null
      when pg_catalog.pg_last_wal_replay_lsn() >= $1::pg_catalog.pg_lsn then 0
      else $2::float8 - extract(epoch from pg_catalog.pg_last_xact_replay_timestamp())
    end::float8 as lag
  from pg_catalog.pg_control_system()`

export function useReplica(primary: Endpoint, replica: Endpoint): Replica {
  let measured = { at: -Infinity, fresh: false }
  let measuring: Promise<boolean> | undefined
  let failures = 0

  const measure = async (): Promise<boolean> => {
    const limits = limitsFor(measureWithinMs)
    try {
      const there = await primary.ask(primaryPosition, [], limits)
      const here = await replica.ask(replicaLag, [there?.['position'], there?.['now']], limits)
      failures = 0
      const lag = here?.['lag']
      // Another cluster or database would answer with other people's data.
      return here?.['data'] === there?.['data'] && typeof lag === 'number' && lag <= greatestLagSeconds
    } catch {
      failures++
      return false
    }
  }
  const isFresh = async (): Promise<boolean> => {
    const wait = failures === 0 ? measureEveryMs : Math.min(measureEveryMs * 2 ** failures, 30_000)
    if (performance.now() - measured.at < wait) return measured.fresh
    measuring ??= measure().then((fresh) => {
      measured = { at: performance.now(), fresh }
      measuring = undefined
      return fresh
    })
    return measuring
  }

  return {
    answer: async (fn, args, limits) => {
      if (!(await isFresh())) return undefined
      try {
        // Half of the time at most, so that the primary has the other half.
        return await replica.call(fn, args, limitsFor(timeLeft(limits) / 2, limits.signal))
      } catch {
        // Cut off, a conflict with replay, a function that is not there yet, or one that writes: the primary decides.
        limits.signal?.throwIfAborted()
        measured = { at: performance.now(), fresh: false }
        return undefined
      }
    },
    close: () => replica.close(),
  }
}
