import { createClient } from '@supabase/supabase-js'
import type { WebSocketLikeConstructor } from '@supabase/supabase-js'
import WebSocket from 'ws'
import { parseAnswer } from '../answer.ts'
import { argumentsText } from '../arguments.ts'
import type { SupabaseConnection } from '../connection.ts'
import type { ContractFunction } from '../contract.ts'
import { isContractFunction } from '../contract.ts'
import { notAFunction, wasClosed } from '../database-error.ts'
import type { Driver, Unlisten } from '../driver.ts'
import type { Limits } from '../patience.ts'
import { bounded, limitsFor, persistently } from '../patience.ts'
import { poll } from '../poll.ts'
import { HttpFailure, mayAskAgain, problemOf, readFailure, usable } from './errors.ts'

/** Functions called over HTTP through PostgREST. No SQL of our own is possible here, so no administration. */
export async function openSupabase(connection: SupabaseConnection): Promise<Driver> {
  const { callTimeoutMs } = connection
  const url = usable(connection)
  const client = connect(connection)
  const polling: Unlisten[] = []
  let closed = false
  const place = { host: url.host, url: `${url.origin}${url.pathname}`.replace(/\/$/, '') }

  const attempt = async (fn: ContractFunction, args: unknown, limits: Limits): Promise<unknown> => {
    // A controller for each: AbortSignal.any would leave something on a command's signal at every call.
    const ending = new AbortController()
    const asked = client.rpc(fn, { args }).abortSignal(ending.signal).retry(false).throwOnError()
    const { data } = await bounded(Promise.resolve(asked), limits, () => ending.abort())
    return data
  }

  const call: Driver['call'] = async (fn, args, options) => {
    if (!isContractFunction(fn)) throw notAFunction(fn)
    if (closed) throw wasClosed(place.host)
    const limits = limitsFor(callTimeoutMs, options?.signal)
    limits.signal?.throwIfAborted()
    // the client makes the text again, and has no words for what it can't
    argumentsText(fn, args)
    try {
      return parseAnswer(fn, await persistently(limits, mayAskAgain, () => attempt(fn, args, limits)))
    } catch (error) {
      limits.signal?.throwIfAborted()
      throw problemOf(error, fn, place, callTimeoutMs)
    }
  }

  return {
    target: { name: `supabase ${place.host}`, consentName: place.host, shared: true },
    call,
    listen: async (channel, onSignal) => {
      const unlisten = await poll(call, channel, connection.pollMs, onSignal)
      polling.push(unlisten)
      return unlisten
    },
    // No connection is held open: each call is a request of its own.
    close: async () => {
      closed = true
      await Promise.all(polling.map((unlisten) => unlisten()))
    },
  }
}

function connect({ url, key, token }: SupabaseConnection) {
  return createClient<Schema, 'tms'>(url, key, {
    db: { schema: 'tms' },
    // Given from outside and never refreshed here; with this option supabase-js keeps no session either.
    accessToken: async () => token ?? null,
    realtime: {
      // Unused; but on Node 20 createClient throws when there is none.
      // The cast is true: ws offers the interface; its constructor has one overload more (address null, for servers).
      transport: WebSocket as unknown as WebSocketLikeConstructor,
    },
    global: { headers: { 'x-client-info': 'tms' }, fetch: request },
  })
}

/**
 * Every answer but 2xx becomes an exception here, because supabase-js turns some of them into empty successes (a 404
 * without a body, for one) and hides the status of others.
 */
const request: typeof fetch = async (input, init) => {
  // A redirect would send the key wherever it points to.
  const response = await fetch(input, { ...init, redirect: 'manual' })
  if (response.ok) return response
  throw new HttpFailure(response.status, await readFailure(response))
}

/** What supabase-js needs to know of the schema: functions that take and give JSON. Checking is `parseAnswer`'s. */
type Schema = {
  tms: {
    Tables: Record<string, never>
    Views: Record<string, never>
    Functions: Record<ContractFunction, { Args: { args: unknown }; Returns: unknown }>
  }
}
