import type { IncomingMessage, ServerResponse } from 'node:http'
import { verifySignature } from '../../../src/signing/request.ts'
import type { Context, Event } from '../../../src/outbox/targets/target.ts'
import { listen } from '../../signing/listen.ts'

/** Servers that check what the real ones check, and that can be told to fail in the ways real ones fail. */

export const signingSecret = 'whsec-5d0f0c8e7b'
export const apiToken = 'api-token-9a1c'

export type Received = { readonly headers: IncomingMessage['headers']; readonly body: string; readonly path: string }

export type Receiver = {
  readonly url: string
  /** What was accepted, in order. */
  readonly received: Received[]
  /** Requests that reached it, accepted or not. */
  requests: number
  /** Instead of accepting: what to do with the next requests. */
  misbehave: ((request: IncomingMessage, response: ServerResponse) => void) | null
}

/** What a receiver answers to a request that came in whole: a status and a text, 2xx when it accepted. */
export type Check = (received: Received, method: string) => readonly [status: number, text: string]

export async function receiver(check: Check): Promise<Receiver> {
  const state: Receiver = { url: '', received: [], requests: 0, misbehave: null }
  const url = await listen((request, response) => {
    state.requests++
    if (state.misbehave) return state.misbehave(request, response)
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const { headers, url: path = '', method = '' } = request
      const received = { headers, path, body: Buffer.concat(parts).toString() }
      const [status, text] = check(received, method)
      if (status < 300) state.received.push(received)
      response.writeHead(status).end(text)
    })
  })
  return Object.assign(state, { url })
}

/** Reads the request and never answers. */
export function hang(request: IncomingMessage): void {
  request.resume()
}

/** The connection ends while the request is on its way. */
export function resetRequest(request: IncomingMessage): void {
  request.once('data', () => request.socket.resetAndDestroy())
}

/** The connection ends in the middle of an answer that says it went well. */
export function resetAnswer(request: IncomingMessage, response: ServerResponse): void {
  request.resume().on('end', () => {
    response.writeHead(200, { 'content-length': '100' })
    response.write('o', () => request.socket.resetAndDestroy())
  })
}

export function answer(status: number, headers: Readonly<Record<string, string>> = {}, text = '') {
  return (request: IncomingMessage, response: ServerResponse): void => {
    request.resume().on('end', () => response.writeHead(status, headers).end(text))
  }
}

export const checkSigned: Check = ({ headers, path, body }, method) => {
  const keys = (id: string) => (id === 'tms' ? [signingSecret] : [])
  const verdict = verifySignature({ headers, method, path, body, now: new Date(), keys })
  if (verdict.kind !== 'ok') return [401, verdict.kind]
  if (headers['content-type'] !== 'application/json') return [415, '']
  // As many receivers do: the id in the header is the one they remember.
  return headers['idempotency-key'] === JSON.parse(body).deliveryId ? [202, 'accepted'] : [400, 'ids differ']
}

export const checkN8n: Check = (received, method) => {
  if (!received.path.startsWith('/webhook/')) {
    const message = `The requested webhook "${method} ${received.path}" is not registered.`
    return [404, JSON.stringify({ code: 404, message, hint: 'The workflow must be active' })]
  }
  const [status] = checkSigned(received, method)
  return status === 202 ? [200, '{"message":"Workflow was started"}'] : [403, 'Authorization data is wrong!']
}

export const checkApi: Check = ({ headers, body }, method) => {
  if (headers.authorization !== `Bearer ${apiToken}`) return [401, `bad token ${String(headers.authorization)}`]
  if (method !== 'PUT') return [405, '']
  return Array.isArray(JSON.parse(body).stops) ? [204, ''] : [422, body]
}

export function anEvent(change: Partial<Event> = {}): Event {
  return {
    id: '7d0c7a1e-5b7e-4c55-9f6e-1b2f0b6a5a01',
    deliveryId: 'b1a5c1f2-0c1f-4f8e-8a44-5f0e4f8f0b02',
    topic: 'load.booked',
    tenant: 'acme',
    payload: { load: { id: 'L-1', stops: ['Köln', 'Łódź'] }, price: '1250.00' },
    createdAt: '2026-11-20T09:30:00.123456Z',
    attempt: 1,
    orderingKey: null,
    traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
    ...change,
  }
}

export function aContext(change: Partial<Context> = {}): Context {
  return {
    signal: new AbortController().signal,
    fetch,
    lookup: async () => Promise.reject(new Error('these tests look up no host')),
    clock: () => new Date(),
    random: (bytes) => crypto.getRandomValues(new Uint8Array(bytes)),
    folder: '/nonexistent',
    timeoutMs: 10_000,
    ...change,
  }
}
