import pg from 'pg'
import { TmsError } from '../../errors.ts'
import { parseAnswer } from '../answer.ts'
import { argumentsText } from '../arguments.ts'
import type { PostgresConnection } from '../connection.ts'
import { contract, isContractFunction } from '../contract.ts'
import { notAFunction } from '../database-error.ts'
import type { Driver, RunSql, Unlisten } from '../driver.ts'
import type { Limits } from '../patience.ts'
import { bounded, limitsFor, persistently } from '../patience.ts'
import { poll } from '../poll.ts'
import { parseAddress } from './address.ts'
import type { Endpoint } from './endpoint.ts'
import { openEndpoint, timesOf } from './endpoint.ts'
import { callError, isLost, isPassing } from './errors.ts'
import type { Listener } from './listen.ts'
import { openListener } from './listen.ts'
import { useReplica } from './replica.ts'

/** The server's own limit fires first and says so properly; then the client stops waiting. */
const graceMs = 1_000
/** Where notifications can't be had. */
const pollMs = 1_000
/** A migration may rewrite a table; a statement that takes longer than this hangs. */
const administrationMs = 15 * 60_000

/** The driver over a server that may be greeted already; else it connects when it is first used. */
export function driverOver(connection: PostgresConnection, primary: Endpoint): Driver {
  const { callTimeoutMs } = connection
  const times = timesOf(connection)
  const { address } = primary
  const replica =
    connection.replicaUrl === undefined
      ? undefined
      : useReplica(primary, openEndpoint(parseAddress(connection.replicaUrl), times))
  let listener: Promise<Listener | undefined> | undefined
  const polling: Unlisten[] = []

  const call: Driver['call'] = async (fn, args, options) => {
    if (!isContractFunction(fn)) throw notAFunction(fn)
    const body = argumentsText(fn, args)
    const limits = limitsFor(callTimeoutMs, options?.signal)
    limits.signal?.throwIfAborted()
    if (replica && contract[fn].reads === 'replica') {
      const text = await replica.answer(fn, body, limits)
      const answer = typeof text === 'string' ? parseAnswer(fn, JSON.parse(text)) : undefined
      // What a replica refuses, the primary may have allowed a second ago; and only there the refusal is recorded.
      if (answer && !('refused' in answer)) return answer
    }
    const waiting = { ...limits, deadline: limits.deadline + graceMs, serverMs: options?.timeoutMs }
    const text = await patiently(primary, fn, limits, () => primary.call(fn, body, waiting))
    return parseAnswer(fn, typeof text === 'string' ? JSON.parse(text) : null)
  }

  return {
    target: { name: `postgres ${address.name}`, consentName: address.consentName, shared: true },
    call,
    listen: async (channel, onSignal) => {
      // One connection for all channels; opened again if the first attempt failed.
      listener ??= openListener(primary, times).catch((error: unknown) => {
        listener = undefined
        throw callError(error, 'listening', address, times.connectMs)
      })
      const pushed = await listener
      if (!pushed) {
        const unlisten = await poll(call, channel, pollMs, onSignal)
        polling.push(unlisten)
        return unlisten
      }
      const off = pushed.on(channel, onSignal)
      return async () => off()
    },
    close: async () => {
      await Promise.all(polling.map((unlisten) => unlisten()))
      await (await listener?.catch(() => undefined))?.close()
      await Promise.all([primary.close(), replica?.close()])
    },
    administration: {
      transaction: (work) => transaction(primary, times.connectMs, work),
    },
  }

  /** Lost connections, restarts and deadlocks: asked again until the time is up. The request id makes that safe. */
  async function patiently<T>(
    endpoint: Endpoint,
    doing: string,
    limits: Limits,
    attempt: () => Promise<T>,
  ): Promise<T> {
    const again = (error: unknown): number | undefined => {
      const notConnected = error instanceof TmsError
      const cause = notConnected ? error.cause : error
      if (isPassing(cause)) return 0
      // A first connection that is refused is a wrong address or a server that is down: said at once.
      return isLost(cause) && (!notConnected || endpoint.worked()) ? 0 : undefined
    }
    try {
      return await persistently(limits, again, attempt)
    } catch (error) {
      throw callError(error, doing, endpoint.address, callTimeoutMs)
    }
  }
}

async function transaction<T>(endpoint: Endpoint, connectMs: number, work: (run: RunSql) => Promise<T>): Promise<T> {
  const client = await endpoint.dedicated(limitsFor(connectMs))
  const send = async (
    text: string,
    parameters: readonly unknown[] = [],
    limitMs = administrationMs + 1_000,
  ): Promise<readonly Record<string, unknown>[]> => {
    const statement = { text, values: [...parameters], types: plainTypes }
    // Without parameters it goes as a simple query, which alone may hold several statements.
    const sent = client.query<Record<string, unknown>>(parameters.length > 0 ? statement : { text, types: plainTypes })
    const limits = limitsFor(limitMs)
    const done = await bounded(sent, limits, () => void client.connection.stream.destroy()).catch((error: unknown) => {
      throw callError(error, 'a statement', endpoint.address, limitMs)
    })
    // `pg` gives a list of results when there were several statements.
    const last = Array.isArray(done) ? (done as pg.QueryResult<Record<string, unknown>>[]).at(-1) : done
    return last?.rows ?? []
  }
  try {
    await send(
      `begin; set local statement_timeout = ${administrationMs}; set local lock_timeout = '60s'`,
      [],
      connectMs,
    )
    const result = await work((text, parameters) => send(text, parameters))
    await send('commit')
    return result
  } finally {
    // Ends an open transaction too. Cutting is enough: the server rolls back what was not committed.
    await Promise.race([client.end(), new Promise((resolve) => setTimeout(resolve, 500).unref())])
    client.connection.stream.destroy()
  }
}

/** Dates stay text: a Date has no microseconds, and the embedded database gives text as well. */
const plainTypes: pg.CustomTypesConfig = {
  getTypeParser: (oid, format): unknown =>
    [1082, 1083, 1114, 1184, 1266].includes(oid) ? (value: string) => value : pg.types.getTypeParser(oid, format),
}
