import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { retryAfterMs } from '../../../src/outbox/targets/exchange.ts'
import { openTarget } from '../../../src/outbox/targets/kinds.ts'
import { hostSecrets } from '../../../src/outbox/targets/secrets.ts'
import type { Context, Event, Outcome } from '../../../src/outbox/targets/target.ts'
import { redact } from '../../../src/redaction/redact.ts'
import { aContext, anEvent, answer, checkSigned, receiver, signingSecret } from './receivers.ts'

/** What the answers of a receiver mean; the same for all kinds that speak HTTP. */

const config = { keyId: 'tms', secretFrom: { env: 'SIGNING' }, hosts: ['127.0.0.1'] }
const secrets = async () => signingSecret

async function aWebhook() {
  const there = await receiver(checkSigned)
  const target = openTarget('webhook', { url: `${there.url}/hook`, ...config })
  const send = (change: Partial<Context> = {}, event: Partial<Event> = {}): Promise<Outcome> =>
    target.send(secrets, anEvent(event), aContext(change))
  return { there, send }
}

test.each([408, 425, 429, 500, 502, 503, 504, 599])('%i is tried again', async (status) => {
  const { there, send } = await aWebhook()
  there.misbehave = answer(status)
  expect(await send()).toEqual({ kind: 'retry', why: `answered ${status}` })
})

test.each([400, 401, 403, 404, 409, 410, 413, 422, 451])('%i is not tried again', async (status) => {
  const { there, send } = await aWebhook()
  there.misbehave = answer(status)
  expect(await send()).toEqual({ kind: 'rejected', why: `answered ${status}` })
})

test.each([200, 201, 202, 204, 299])('%i is delivered', async (status) => {
  const { there, send } = await aWebhook()
  there.misbehave = answer(status)
  expect(await send()).toEqual({ kind: 'delivered', note: `answered ${status}` })
})

test.each([301, 302, 303, 307, 308])('a redirect (%i) is never followed', async (status) => {
  const { there, send } = await aWebhook()
  const elsewhere = await receiver(() => [200, ''])
  there.misbehave = answer(status, { location: elsewhere.url })
  expect(await send()).toMatchObject({ kind: 'rejected', why: expect.stringContaining('redirect') })
  expect(elsewhere.requests).toBe(0)
})

test('a receiver that says when to come back is believed, up to an hour', async () => {
  const { there, send } = await aWebhook()
  const clock = () => new Date('2026-11-20T09:30:00Z')
  there.misbehave = answer(429, { 'retry-after': '7' })
  expect(await send({ clock })).toEqual({ kind: 'retry', why: 'answered 429', afterMs: 7000 })
  there.misbehave = answer(503, { 'retry-after': 'Fri, 20 Nov 2026 09:31:00 GMT' })
  expect(await send({ clock })).toMatchObject({ kind: 'retry', afterMs: 60_000 })
  there.misbehave = answer(503, { 'retry-after': '86400' })
  expect(await send({ clock })).toMatchObject({ kind: 'retry', afterMs: 3_600_000 })
})

test('whatever stands in Retry-After gives nothing, or a wait between nothing and an hour', () => {
  const now = new Date('2026-11-20T09:30:00Z')
  expect(retryAfterMs('Fri, 20 Nov 2026 09:29:00 GMT', now)).toBe(0)
  for (const odd of [null, '', '-1', '1.5', '1e3', 'soon', '2026-11-20', 'Fri, 99 Nov 2026 09:31:00 GMT']) {
    expect(retryAfterMs(odd, now), String(odd)).toBeNull()
  }
  const text = fc.oneof(fc.string(), fc.bigInt({ min: 0n, max: 10n ** 20n }).map(String))
  fc.assert(
    fc.property(text, (header) => {
      const wait = retryAfterMs(header, now)
      expect(wait === null || (wait >= 0 && wait <= 3_600_000)).toBe(true)
    }),
  )
})

test('an answer without end is read to 4 KB and then cut off', async () => {
  const { there, send } = await aWebhook()
  const cutOff = new Promise<void>((resolve) => {
    there.misbehave = (request, response) => {
      request.resume().on('end', () => {
        response.writeHead(200)
        const more = () => response.writable && response.write('x'.repeat(2048), () => setImmediate(more))
        more()
      })
      request.socket.on('close', () => resolve())
    }
  })
  expect(await send()).toMatchObject({ kind: 'delivered' })
  await cutOff

  let given = 0
  const pull = (controller: ReadableStreamDefaultController) => {
    given += 1000
    controller.enqueue(new Uint8Array(1000))
  }
  const endless = async () => new Response(new ReadableStream({ pull }, { highWaterMark: 0 }))
  expect(await send({ fetch: endless })).toMatchObject({ kind: 'delivered' })
  expect(given).toBe(5000)
})

test('an answer that drips is not waited for: its status was all that mattered', async () => {
  const { there, send } = await aWebhook()
  there.misbehave = (request, response) => {
    request.resume().on('end', () => response.writeHead(200).write('x'))
  }
  expect(await send({ timeoutMs: 10_000 })).toMatchObject({ kind: 'delivered' })
})

test('nobody listens there: try again later, and the outcome names the reason without the address', async () => {
  const closed = createServer().listen(0, '127.0.0.1')
  await once(closed, 'listening')
  // True because it listens on a port, not on a pipe.
  const { port } = closed.address() as AddressInfo
  closed.close()
  await once(closed, 'close')
  const target = openTarget('webhook', { url: `http://127.0.0.1:${port}/secret-path`, ...config })
  const outcome = { kind: 'retry', why: 'no answer (ECONNREFUSED)' }
  expect(await target.send(secrets, anEvent(), aContext())).toEqual(outcome)
})

test('an error without a code is not quoted', async () => {
  const { send } = await aWebhook()
  const failing = async () => Promise.reject(new TypeError('Failed to parse URL from http://secret'))
  expect(await send({ fetch: failing })).toEqual({
    kind: 'retry',
    why: 'no answer (the connection failed): it may have arrived',
    unknown: true,
  })
})

test('a secret that is missing, or can not be read, is a reason to try again and not one to give up', async () => {
  const { there } = await aWebhook()
  const env = openTarget('webhook', { url: there.url, ...config })
  const file = openTarget('webhook', { url: there.url, ...config, secretFrom: { file: '/run/secrets/hook' } })
  const throwing = async () => Promise.reject(new Error('EACCES: /run/secrets/hook contains hunter2'))
  const why = 'the secret in the variable SIGNING is missing on the worker'
  expect(await env.send(async () => '', anEvent(), aContext())).toEqual({ kind: 'retry', why })
  expect(await env.send(throwing, anEvent(), aContext())).toEqual({ kind: 'retry', why })
  expect(await file.send(throwing, anEvent(), aContext())).toEqual({
    kind: 'retry',
    why: "the secret in the file /run/secrets/hook can't be read by the worker",
  })
  expect(there.requests).toBe(0)
})

test('a secret that a target may not name is not said to be missing', async () => {
  const { there } = await aWebhook()
  const set = hostSecrets({ SIGNING: signingSecret }, null)
  const from = (secretFrom: { env: string } | { file: string }) =>
    openTarget('webhook', { url: there.url, ...config, secretFrom }).send(set, anEvent(), aContext())
  const why = "the worker can't get the secret, because "
  const unnamed = await from({ env: 'SIGNING' })
  // A name that looks like a secret's value would be shown as asterisks.
  expect(redact(unnamed)).toEqual(unnamed)
  expect(unnamed).toEqual({
    kind: 'retry',
    why: expect.stringContaining(`${why}SIGNING can't be named by a target, only TMS_SECRET_…`),
  })
  expect(await from({ env: 'TMS_SECRET_HOOK' })).toEqual({ kind: 'retry', why: `${why}TMS_SECRET_HOOK is not set` })
  expect(await from({ file: '/run/hook' })).toMatchObject({ why: expect.stringContaining('no folder of secrets') })
  expect(there.requests).toBe(0)
})

test('an address that comes from a secret is checked like one that is written down', async () => {
  const { there } = await aWebhook()
  const target = openTarget('webhook', { urlFrom: { env: 'URL' }, ...config })
  const from = (address: string) => async (source: { env: string } | { file: string }) =>
    'env' in source && source.env === 'URL' ? address : signingSecret
  expect(await target.send(from(`${there.url}/hook`), anEvent(), aContext())).toMatchObject({ kind: 'delivered' })
  for (const odd of ['not-a-url-hunter2', 'file:///etc/passwd', 'http://user:hunter2@127.0.0.1/']) {
    const outcome = await target.send(from(odd), anEvent(), aContext())
    expect(outcome.kind).toBe('retry')
    expect(JSON.stringify(outcome)).not.toContain('hunter2')
  }
})

test('a retry is signed anew and has the same body, so a receiver can compare it', async () => {
  const { there, send } = await aWebhook()
  await send({}, { attempt: 1 })
  await send({}, { attempt: 2 })
  const [one, two] = there.received
  expect(one?.body).toBe(two?.body)
  expect(one?.headers['x-transbot-nonce']).not.toBe(two?.headers['x-transbot-nonce'])
  expect([one?.headers['x-transbot-attempt'], two?.headers['x-transbot-attempt']]).toEqual(['1', '2'])
  expect(JSON.parse(one?.body ?? '')).toEqual({
    id: anEvent().id,
    deliveryId: anEvent().deliveryId,
    topic: 'load.booked',
    tenant: 'acme',
    createdAt: anEvent().createdAt,
    orderingKey: null,
    payload: anEvent().payload,
  })
})

test('the trace goes along when there is a valid one', async () => {
  const { there, send } = await aWebhook()
  await send()
  await send({}, { traceparent: null })
  await send({}, { traceparent: 'nonsense\r\nx: y' })
  expect(there.received.map(({ headers }) => headers.traceparent)).toEqual([
    anEvent().traceparent,
    undefined,
    undefined,
  ])
})

test('during a rotation the request is signed with both secrets', async () => {
  const { there } = await aWebhook()
  const target = openTarget('webhook', { ...config, url: there.url, secretFrom: [{ env: 'NEW' }, { env: 'OLD' }] })
  const both = async (source: { env: string } | { file: string }) =>
    'env' in source && source.env === 'OLD' ? signingSecret : 'the new one'
  expect(await target.send(both, anEvent(), aContext())).toMatchObject({ kind: 'delivered' })
})

test('a delivery id that would break out of its header is refused', async () => {
  const { there, send } = await aWebhook()
  expect(await send({}, { deliveryId: 'a\r\nx-admin: 1' })).toMatchObject({ kind: 'rejected' })
  expect(there.requests).toBe(0)
})

test('n8n: a workflow that is not active now is tried again, any other 404 is not', async () => {
  const there = await receiver(checkSigned)
  const target = openTarget('n8n', { url: `${there.url}/webhook/x`, ...config })
  there.misbehave = answer(404, {}, '{"code":404,"message":"The requested webhook \\"POST x\\" is not registered."}')
  expect(await target.send(secrets, anEvent(), aContext())).toMatchObject({ kind: 'retry' })
  there.misbehave = answer(200, {}, 'webhook is not registered')
  expect(await target.send(secrets, anEvent(), aContext())).toMatchObject({ kind: 'delivered' })
  there.misbehave = answer(404, {}, 'nginx')
  expect(await target.send(secrets, anEvent(), aContext())).toMatchObject({ kind: 'rejected' })
})

test('n8n: a test URL is refused, written down or from a secret', async () => {
  const test = 'https://n8n.example/webhook-test/abc'
  expect(() => openTarget('n8n', { url: test, ...config })).toThrow(
    expect.objectContaining({ why: expect.stringContaining('production URL') }),
  )
  const target = openTarget('n8n', { urlFrom: { env: 'URL' }, ...config })
  expect(await target.send(async () => test, anEvent(), aContext())).toMatchObject({ kind: 'rejected' })
})
