import { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import type { PostgresConnection } from '../connection.ts'
import type { ContractFunction } from '../contract.ts'
import { wasClosed } from '../database-error.ts'
import type { Limits } from '../patience.ts'
import { TimeUp, bounded, timeLeft } from '../patience.ts'
import { parseAddress, type Address } from './address.ts'
import { allBusy, connectError, saysNoTls, saysStartupParameter } from './errors.ts'

/** One server, with the connections to it and what was learned about it. */
export type Endpoint = {
  readonly address: Address
  /** Calls one contract function, once. */
  call(fn: ContractFunction, args: string, limits: Limits): Promise<unknown>
  /** A statement of the driver's own. */
  ask(text: string, values: readonly unknown[], limits: Limits): Promise<Record<string, unknown> | undefined>
  /** A connection outside the pool: for listening and for administration. The caller ends it. */
  dedicated(limits: Limits): Promise<pg.Client>
  /** Begins to connect, for the first call. What goes wrong is that call's to say. */
  greet(): void
  /** Whether there ever was a connection: then a refused one is an outage, and not a wrong address. */
  worked(): boolean
  /** Statements may land on different sessions of the server. */
  pooled(): boolean
  close(): Promise<void>
}

type Arrived = { readonly session: pg.PoolClient; readonly from: pg.Pool }
type Settings = { readonly tls: boolean; readonly pooled: boolean }

const poolSize = 8

export function endpointOf({ url, connectTimeoutMs, callTimeoutMs }: PostgresConnection): Endpoint {
  return openEndpoint(parseAddress(url), timesOf({ connectTimeoutMs, callTimeoutMs }))
}

export function timesOf({
  connectTimeoutMs,
  callTimeoutMs,
}: Pick<PostgresConnection, 'connectTimeoutMs' | 'callTimeoutMs'>) {
  return { connectMs: Math.min(connectTimeoutMs, callTimeoutMs), callMs: callTimeoutMs }
}

export function openEndpoint(address: Address, times: { connectMs: number; callMs: number }): Endpoint {
  let settings: Settings = { tls: address.tls.use !== 'never', pooled: false }
  let worked = false
  let reached = false
  /** Sessions that are known to be the server's own, so that what is prepared on them stays there. */
  const direct = new WeakSet<pg.Client>()
  const sockets = new Set<Socket>()
  let closed = false
  let active = 0
  let drained = (): void => undefined

  const config = ({ tls, pooled }: Settings): pg.ClientConfig => ({
    host: address.host,
    port: address.port,
    database: address.database,
    user: address.user,
    password: address.password,
    ssl: tls && address.tls.options,
    application_name: 'tms',
    connectionTimeoutMillis: times.connectMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    stream: () => {
      reached = false
      const socket = new Socket().once('connect', () => (reached = true)).once('close', () => sockets.delete(socket))
      sockets.add(socket)
      return socket
    },
    // Behind a pooler a session setting would leak to other clients; there each call brings its own limit.
    ...(pooled ? { pipeline: true } : { statement_timeout: times.callMs }),
  })
  const makePool = (): pg.Pool =>
    new pg.Pool({ ...config(settings), max: poolSize, idleTimeoutMillis: 30_000, allowExitOnIdle: true })
      // Errors reach us through the query; without a listener Node would end the process.
      .on('connect', (client) => void client.on('error', () => undefined))
      .on('error', () => undefined)
  let pool = makePool()
  const pools = [pool]

  const learn = (from: Settings, lesson: Partial<Settings>): void => {
    if (from !== settings) return
    settings = { ...settings, ...lesson }
    // The old pool still serves those who wait in it (ending it would leave them waiting) and keeps nothing.
    pool = makePool()
    pools.push(pool)
  }
  /** What an error teaches about the server; each lesson can be had once, so this ends. */
  const learning = async <T>(connect: () => Promise<T>): Promise<T> => {
    const used = settings
    try {
      const connected = await connect()
      worked = true
      return connected
    } catch (error) {
      if (used.tls && address.tls.use === 'prefer' && saysNoTls(error)) learn(used, { tls: false })
      else if (!used.pooled && saysStartupParameter(error)) learn(used, { pooled: true })
      else throw connectError(error, address, times.connectMs, reached)
      return learning(connect)
    }
  }

  const refuseWhenClosed = (): void => {
    if (closed) throw wasClosed(address.name)
  }
  const arrival = (): Promise<Arrived> =>
    learning(async () => {
      const from = pool
      return { session: await from.connect(), from }
    })
  let greeted: Promise<Arrived> | undefined
  const takeSession = async (limits: Limits): Promise<Arrived> => {
    const arriving = greeted ?? arrival()
    greeted = undefined
    const abandon = (): void => {
      // Too late for this call; the next one can have it.
      arriving.then(({ session }) => session.release()).catch(() => undefined)
    }
    try {
      return await bounded(arriving, limits, abandon)
    } catch (error) {
      if (!(error instanceof TimeUp)) throw error
      throw pool.waitingCount > 0
        ? allBusy(address, times.callMs)
        : connectError(error, address, times.connectMs, reached)
    }
  }

  const withSession = async <T>(limits: Limits, work: (session: pg.PoolClient) => Promise<T>): Promise<T> => {
    active++
    try {
      refuseWhenClosed()
      const { session, from } = await takeSession(limits)
      let healthy = false
      try {
        refuseWhenClosed()
        const done = await bounded(work(session), limits, () => session.connection.stream.destroy())
        healthy = true
        return done
      } catch (error) {
        // After ERROR the session goes on, after FATAL it has ended; everything else happened to the connection.
        healthy = error instanceof pg.DatabaseError && error.severity === 'ERROR'
        throw error
      } finally {
        if (!healthy) session.connection.stream.destroy()
        session.release(!healthy || from !== pool)
      }
    } finally {
      active--
      if (active === 0) drained()
    }
  }

  const run = async (session: pg.PoolClient, statement: pg.QueryConfig, limits: Limits) => {
    const { serverMs = times.callMs } = limits
    if (!session.pipeline) {
      const ask = async () => (await session.query<Record<string, unknown>>(statement)).rows[0]
      return serverMs < times.callMs ? within(session, serverMs, ask) : ask()
    }
    // One round trip: the four are sent at once, and the pooler keeps them on one session.
    const limit = Math.max(1, Math.ceil(Math.min(times.callMs, serverMs, timeLeft(limits))))
    const sent = [
      session.query('begin'),
      session.query(`set local statement_timeout = ${limit}`),
      session.query<Record<string, unknown>>(statement),
      session.query('commit'),
    ] as const
    await Promise.allSettled(sent)
    const [, , answer] = await Promise.all(sent)
    return answer.rows[0]
  }

  return {
    address,
    greet: () => {
      greeted = arrival()
      greeted.catch(() => undefined)
    },
    worked: () => worked,
    pooled: () => settings.pooled,
    call: (fn, args, limits) =>
      withSession(limits, async (session) => {
        const used = settings
        const row = await run(
          session,
          {
            // Fully qualified: nothing in it may depend on a search_path. As text: JSON.parse is the same everywhere.
            text: `select pg_catalog.pg_backend_pid() as pid, tms.${fn}($1::pg_catalog.jsonb)::pg_catalog.text as answer`,
            values: [args],
            // Measured: nothing gained for the first call, 1.5 to 1.6 times the calls a second after it.
            ...(direct.has(session) ? { name: fn } : {}),
          },
          limits,
        )
        // A pooler hands out a key of its own; only Postgres itself announces the pid of the session.
        if (row?.['pid'] === announcedPid(session)) direct.add(session)
        else if (!used.pooled) learn(used, { pooled: true })
        return row?.['answer']
      }),
    ask: (text, values, limits) =>
      withSession(limits, (session) => run(session, { text, values: [...values] }, limits)),
    dedicated: (limits) =>
      learning(async () => {
        const client = new pg.Client(config(settings))
        client.on('error', () => undefined)
        const abandon = (): void => void client.connection.stream.destroy()
        await bounded(client.connect(), limits, abandon)
        return client
      }),
    close: async () => {
      if (closed) return
      closed = true
      // A pool that is ended forgets those who wait in it, so calls that run come first; but a dead wire won't be waited for.
      const calm = new Promise<void>((resolve) => (drained = resolve))
      if (active > 0) await Promise.race([calm, pause(500, undefined, { ref: false })])
      for (const each of pools) void each.end()
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** With a time limit of its own, which ends with the transaction: the session goes back to the pool as it was. */
async function within<T>(session: pg.PoolClient, limitMs: number, ask: () => Promise<T>): Promise<T> {
  await session.query(`begin; set local statement_timeout = ${Math.max(1, Math.ceil(limitMs))}`)
  try {
    const answer = await ask()
    await session.query('commit')
    return answer
  } catch (error) {
    // The first error is the reason; a connection that is gone has undone everything by itself.
    await session.query('rollback').catch(() => undefined)
    throw error
  }
}

export function announcedPid(client: pg.Client): unknown {
  // The cast is true: `pg` keeps the pid of BackendKeyData there since 0.6, its types just don't list it.
  return (client as unknown as { processID?: unknown }).processID
}
