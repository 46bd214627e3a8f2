import fc from 'fast-check'
import { expect, test } from 'vitest'
import { openTarget } from '../../../src/outbox/targets/kinds.ts'
import type { Event, Json } from '../../../src/outbox/targets/target.ts'
import { fill } from '../../../src/outbox/targets/template.ts'
import { aContext, anEvent, receiver } from './receivers.ts'

async function send(config: Readonly<Record<string, unknown>>, event: Partial<Event> = {}, secret = 's3cret-token') {
  const there = await receiver(() => [200, ''])
  const target = openTarget('http', { url: `${there.url}/x`, hosts: ['127.0.0.1'], ...config })
  const outcome = await target.send(async () => secret, anEvent(event), aContext())
  return { outcome, received: there.received[0], requests: there.requests }
}

test('a placeholder alone keeps its type, inside text it becomes text', async () => {
  const body = {
    stops: '{{payload.load.stops}}',
    first: '{{ payload.load.stops.0 }}',
    line: 'Load {{payload.load.id}}: {{attempt}}',
  }
  const { received } = await send({ body: { ...body, fixed: [1, null, true], none: '{{orderingKey}}' } })
  expect(JSON.parse(received?.body ?? '')).toEqual({
    stops: ['Köln', 'Łódź'],
    first: 'Köln',
    line: 'Load L-1: 1',
    fixed: [1, null, true],
    none: null,
  })
})

test('no value of an event can add a field, end a string, or be filled in itself', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.constant('","admin":true,"x":"{{tenant}}')), (value) => {
      const filled = fill({ a: 'x {{payload.v}}', b: '{{payload.v}}' }, anEvent({ payload: { v: value } }))
      expect(filled).toEqual({ value: { a: `x ${value}`, b: value } })
    }),
  )
})

test('replacement patterns in a value are text', () => {
  expect(fill('<{{payload}}>', anEvent({ payload: '$& $1 $`' }))).toEqual({ value: '<$& $1 $`>' })
})

test('what the event lacks is named, and only its own data is found', async () => {
  const { outcome, requests } = await send({ body: { a: '{{payload.nothing}}' } })
  expect(outcome).toEqual({ kind: 'rejected', why: 'the event has no {{payload.nothing}}' })
  expect(requests).toBe(0)
  for (const path of [
    'payload.constructor',
    'payload.__proto__',
    'payload.load.stops.length',
    'payload.load.stops.9',
  ]) {
    expect(fill(`{{${path}}}`, anEvent()), path).toEqual({ missing: path })
  }
  const payload: Json = JSON.parse('{"__proto__": 1}')
  expect(fill('{{payload.__proto__}}', anEvent({ payload }))).toEqual({ value: 1 })
})

test('headers may hold values of the event and secrets', async () => {
  const headers = { 'X-Tenant': 'tenant={{tenant}}', Authorization: { from: { env: 'A' }, prefix: 'Bearer ' } }
  const { received } = await send({ headers })
  expect(received?.headers).toMatchObject({
    'x-tenant': 'tenant=acme',
    authorization: 'Bearer s3cret-token',
    'idempotency-key': anEvent().deliveryId,
    traceparent: anEvent().traceparent,
  })
})

test('a secret header goes only where nobody on the way can read it', async () => {
  const headers = { Authorization: { from: { env: 'A' } } }
  const given = { url: 'http://api.internal/x', hosts: ['api.internal'], headers }
  expect(problem(() => openTarget('http', given))).toMatchObject({
    code: 'INPUT_INVALID',
    message: expect.stringContaining('http target'),
    why: 'url: takes an https address, or one of this host: a header carries a secret',
    next: [expect.stringContaining('https://')],
  })
  for (const url of ['https://api.internal/x', 'http://127.0.0.1:1/x', 'http://localhost:1/x', 'http://[::1]:1/x'])
    expect(() => openTarget('http', { ...given, url })).not.toThrow()
  // Without a secret the network is the owner's affair.
  expect(() => openTarget('http', { ...given, headers: { 'X-Tenant': '{{tenant}}' } })).not.toThrow()
})

test.each(['http', 'webhook', 'n8n'])(
  '%s sends nothing to an address from a secret that others could read',
  async (kind) => {
    const more = kind === 'http' ? {} : { keyId: 'k', secretFrom: { env: 'KEY' } }
    const target = openTarget(kind, { urlFrom: { env: 'URL' }, hosts: ['api.internal'], ...more })
    const outcome = await target.send(async () => 'http://api.internal/hook', anEvent(), aContext())
    expect(outcome).toEqual({ kind: 'rejected', why: 'takes an https address, or one of this host' })
  },
)

function problem(work: () => unknown): unknown {
  try {
    work()
  } catch (error) {
    return error
  }
  return null
}

test('no value can start a header of its own', async () => {
  const headers = { 'X-Tenant': '{{tenant}}' }
  for (const tenant of ['a\r\nx-admin: 1', 'ä', '', ' a']) {
    const { outcome, requests } = await send({ headers }, { tenant })
    expect(outcome).toMatchObject({ kind: 'rejected', why: expect.stringContaining('X-Tenant') })
    expect(requests).toBe(0)
  }
  const { outcome } = await send({ headers: { Authorization: { from: { env: 'A' } } } }, {}, 'two\nlines-s3cret')
  expect(outcome).toMatchObject({ kind: 'retry', why: expect.stringContaining('Authorization') })
  expect(JSON.stringify(outcome)).not.toContain('s3cret')
})

test('without a body of its own it sends the event as a webhook does', async () => {
  const { received } = await send({ method: 'PATCH' })
  expect(JSON.parse(received?.body ?? '')).toMatchObject({ topic: 'load.booked', payload: anEvent().payload })
})
