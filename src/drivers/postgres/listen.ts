import { randomUUID } from 'node:crypto'
import { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import type pg from 'pg'
import type { Channel, Signal } from '../driver.ts'
import { channels } from '../driver.ts'
import { bounded, limitsFor } from '../patience.ts'
import type { Endpoint } from './endpoint.ts'
import { announcedPid } from './endpoint.ts'

export type Listener = {
  on(channel: Channel, onSignal: (signal: Signal) => void): () => void
  close(): Promise<void>
}

/** A silent connection may be dead, and TCP finds out late or never: it is asked this often. */
const heartbeatMs = 10_000

/**
 * One connection that hears all channels, or undefined where notifications don't arrive: behind a pooler, or in front of
 * one that hides well. After each reconnect everybody gets a signal, because nobody knows what was missed.
 */
export async function openListener(
  endpoint: Endpoint,
  times: { connectMs: number; heartbeatMs?: number },
): Promise<Listener | undefined> {
  const everybody = new Map<symbol, { channel: Channel; onSignal: (signal: Signal) => void }>()
  const stop = new AbortController()
  const limits = () => limitsFor(times.connectMs)

  const connect = async (): Promise<pg.Client | undefined> => {
    const client = await endpoint.dedicated(limits())
    try {
      if (await hears(client)) return client
      client.connection.stream.destroy()
      return undefined
    } catch (error) {
      client.connection.stream.destroy()
      throw error
    }
  }
  const hears = async (client: pg.Client): Promise<boolean> => {
    const cut = (): void => void client.connection.stream.destroy()
    const probe = `tms_probe_${randomUUID().replaceAll('-', '')}`
    const {
      rows: [row],
    } = await bounded(client.query<{ pid: number }>('select pg_catalog.pg_backend_pid() as pid'), limits(), cut)
    // LISTEN through a pooler would also stay behind on a session that others get.
    if (row?.pid !== announcedPid(client)) return false
    const heard = new Promise<void>((resolve) => {
      client.on('notification', ({ channel }) => {
        if (channel === probe) resolve()
      })
    })
    for (const channel of [probe, ...channels.map((name) => `tms_${name}`)]) {
      await bounded(client.query(`listen ${channel}`), limits(), cut)
    }
    // From another connection: one's own notification would come back even through a pooler.
    await endpoint.ask('select pg_catalog.pg_notify($1, $2)', [probe, ''], limits())
    const arrived = await bounded(heard, limitsFor(2_000), () => undefined).then(
      () => true,
      () => false,
    )
    await bounded(client.query(`unlisten ${probe}`), limits(), cut)
    return arrived
  }

  const first = await connect()
  if (!first) return undefined

  const attend = async (client: pg.Client): Promise<void> => {
    const stream = client.connection.stream
    const ended = new Promise<void>((resolve) => client.once('end', resolve))
    client.on('notification', ({ channel }) => {
      for (const each of everybody.values())
        if (channel === `tms_${each.channel}`) each.onSignal({ channel: each.channel })
    })
    let beating = false
    const beat = setInterval(() => {
      if (beating) return
      beating = true
      const asked = bounded(client.query('select'), limits(), () => stream.destroy())
      asked.catch(() => undefined).finally(() => (beating = false))
    }, times.heartbeatMs ?? heartbeatMs).unref()
    stop.signal.addEventListener('abort', () => stream.destroy(), { once: true })
    // Whoever only listens has nothing to wait for.
    if (stream instanceof Socket) stream.unref()
    await ended
    clearInterval(beat)
  }
  const loop = async (): Promise<void> => {
    await attend(first)
    for (let failures = 0; !stop.signal.aborted; failures++) {
      await pause(Math.random() * Math.min(100 * 2 ** failures, 10_000), undefined, { signal: stop.signal, ref: false })
      const client = await connect().catch(() => undefined)
      if (!client) continue
      failures = 0
      for (const { channel, onSignal } of everybody.values()) onSignal({ channel })
      await attend(client)
    }
  }
  const ended = loop().catch(() => undefined)

  return {
    on: (channel, onSignal) => {
      const key = Symbol()
      everybody.set(key, { channel, onSignal })
      return () => void everybody.delete(key)
    },
    close: async () => {
      stop.abort()
      await ended
    },
  }
}
