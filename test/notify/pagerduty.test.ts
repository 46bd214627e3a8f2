import fc from 'fast-check'
import { expect, test } from 'vitest'
import { openTarget } from '../../src/outbox/targets/kinds.ts'
import { dedupKeyOf, pagerdutyMessage } from '../../src/outbox/targets/pagerduty-message.ts'
import type { Event, Json } from '../../src/outbox/targets/target.ts'
import { aContext, anEvent, answer } from '../outbox/targets/receivers.ts'
import { checkPagerduty, otherRoutingKey, routingKey, startPagerduty } from './pagerduty-server.ts'

const incident = (topic: string, change: Readonly<Record<string, Json>> = {}): Partial<Event> => ({
  topic,
  tenant: null,
  payload: { incident: '7', title: 'Stock below zero', priority: 'P1', dedup_key: 'tms-incident-7', ...change },
})

async function aPager(config: Readonly<Record<string, unknown>> = {}) {
  const there = await startPagerduty()
  const keys: Record<string, string> = { PAGER: routingKey, OLD: otherRoutingKey, SHORT: 'too-short' }
  const target = openTarget('pagerduty', {
    routingKeyFrom: { env: 'PAGER' },
    baseUrl: there.url,
    hosts: ['127.0.0.1'],
    ...config,
  })
  const send = (event: Partial<Event> = {}) =>
    target.send(async (source) => ('env' in source ? (keys[source.env] ?? '') : ''), anEvent(event), aContext())
  return { there, send }
}

test('an incident is one alert from its opening to its end, whatever its title becomes', async () => {
  const { there, send } = await aPager()
  await send(incident('incident.opened'))
  await send(incident('incident.escalated', { title: 'Stock still below zero' }))
  expect(there.alerts).toMatchObject([{ dedupKey: 'tms-incident-7', severity: 'critical', state: 'triggered' }])
  await send(incident('incident.acked'))
  expect(there.alerts).toMatchObject([{ state: 'acknowledged' }])
  await send(incident('incident.resolved'))
  await send(incident('incident.closed'))
  expect(there.alerts).toMatchObject([{ state: 'resolved' }])
})

test('what is not of the highest priority pages when it escalates', async () => {
  const { there, send } = await aPager()
  expect(await send(incident('incident.opened', { priority: 'P3' }))).toMatchObject({ kind: 'delivered' })
  expect(there.requests).toBe(0)
  await send(incident('incident.escalated', { priority: 'P3' }))
  expect(there.alerts).toMatchObject([{ severity: 'warning' }])
})

test('deploys, rollbacks and the return of the fleet are changes and page nobody', async () => {
  const { there, send } = await aPager()
  for (const topic of ['deploy.finished', 'rollback.done', 'fleet.resumed'])
    expect(await send({ topic, tenant: null, payload: { title: topic } })).toMatchObject({ kind: 'delivered' })
  expect(there.changes).toEqual(['deploy.finished', 'rollback.done', 'fleet.resumed'])
  expect(there.alerts).toEqual([])
})

test.each([
  ['P1', 'critical'],
  ['P2', 'error'],
  ['P3', 'warning'],
  ['P4', 'info'],
  ['high', 'error'],
  ['nonsense', 'error'],
])('priority %s is severity %s', async (priority, severity) => {
  const { there, send } = await aPager()
  await send(incident('incident.escalated', { priority }))
  expect(there.alerts).toMatchObject([{ severity }])
})

test('while the key is being replaced, what ends an alert reaches the key that began it', async () => {
  const old = await aPager({ routingKeyFrom: { env: 'OLD' } })
  await old.send(incident('incident.opened'))
  const both = openTarget('pagerduty', {
    routingKeyFrom: [{ env: 'PAGER' }, { env: 'OLD' }],
    baseUrl: old.there.url,
    hosts: ['127.0.0.1'],
  })
  const keys: Record<string, string> = { PAGER: routingKey, OLD: otherRoutingKey }
  const send = (event: Partial<Event>) =>
    both.send(async (source) => ('env' in source ? (keys[source.env] ?? '') : ''), anEvent(event), aContext())
  await send(incident('incident.resolved'))
  expect(old.there.alerts).toMatchObject([{ routingKey: otherRoutingKey, state: 'resolved' }])
  // With the new key alone the end is dropped without a word: that is what the second key is for.
  await old.send(incident('incident.opened'))
  const alone = await aPager({ baseUrl: old.there.url })
  expect(await alone.send(incident('incident.resolved'))).toMatchObject({ kind: 'delivered' })
  expect(old.there.alerts.at(-1)).toMatchObject({ state: 'triggered' })
  // What begins goes to one of them.
  await send(incident('incident.opened', { dedup_key: 'tms-incident-8' }))
  expect(old.there.alerts.filter(({ dedupKey }) => dedupKey === 'tms-incident-8')).toHaveLength(1)
})

test.each([
  [429, 'retry'],
  [500, 'retry'],
  [503, 'retry'],
  [400, 'rejected'],
  [401, 'rejected'],
  [404, 'rejected'],
  [408, 'rejected'],
  [413, 'rejected'],
  [302, 'rejected'],
  // Not what PagerDuty says: a login page of somebody in between.
  [200, 'retry'],
])('an answer of %i: %s', async (status, kind) => {
  const { there, send } = await aPager()
  there.misbehave = answer(status, {}, routingKey)
  const outcome = await send(incident('incident.opened'))
  expect(outcome.kind).toBe(kind)
  expect(JSON.stringify(outcome)).not.toContain(routingKey)
})

test('when it has had too much it is asked again when it says', async () => {
  const { there, send } = await aPager()
  there.misbehave = answer(429, { 'retry-after': '30' })
  expect(await send(incident('incident.opened'))).toEqual({ kind: 'retry', why: 'answered 429', afterMs: 30_000 })
})

test('accepted is said to be accepted', async () => {
  const { send } = await aPager()
  expect(await send(incident('incident.opened'))).toEqual({ kind: 'delivered', note: 'accepted by PagerDuty (202)' })
})

test('which field it does not accept is said, and nothing else of its answer', async () => {
  const { there, send } = await aPager()
  there.misbehave = answer(400, {}, `{"errors":["'payload.summary' is missing or blank ${routingKey}"]}`)
  expect(await send(incident('incident.opened'))).toEqual({
    kind: 'rejected',
    why: 'answered 400: PagerDuty does not accept summary',
  })
})

test('a key that can not be one is not sent at all', async () => {
  const { there, send } = await aPager({ routingKeyFrom: { env: 'SHORT' } })
  expect(await send(incident('incident.opened'))).toMatchObject({ kind: 'rejected' })
  expect(there.requests).toBe(0)
})

test('only https, this host, and hosts of PagerDuty or of the list get the key', async () => {
  expect(() => openTarget('pagerduty', { routingKeyFrom: { env: 'PAGER' }, baseUrl: 'http://proxy.example' })).toThrow()
  expect(() => openTarget('pagerduty', { routingKeyFrom: { env: 'PAGER' }, baseUrl: 'https://a.example/x' })).toThrow()
  expect(() => openTarget('pagerduty', { routingKey })).toThrow()
  const { there, send } = await aPager({ baseUrl: 'https://events.pagerduty.com.evil.example' })
  expect(await send(incident('incident.opened'))).toMatchObject({ kind: 'rejected' })
  expect(there.requests).toBe(0)
  openTarget('pagerduty', { routingKeyFrom: { env: 'PAGER' }, baseUrl: 'https://events.eu.pagerduty.com' })
})

test('personal details do not leave', async () => {
  const { there, send } = await aPager()
  await send(
    incident('incident.opened', { title: 'for ann@acme.example', mail: 'ann@acme.example', password: 'hunter22' }),
  )
  expect(there.received[0]?.body).not.toMatch(/ann@|hunter22/)
  expect(there.alerts).toHaveLength(1)
})

test('whatever is in the event, PagerDuty accepts it, in its size and lengths', () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.constantFrom('', ' ', '\n', '👩‍🚀'.repeat(900), '\ud800', 'x'.repeat(20_000)),
  )
  const payload: fc.Arbitrary<Json> = fc.oneof(
    fc.jsonValue() as fc.Arbitrary<Json>,
    fc.record({
      title: text,
      severity: text,
      source: text,
      link: text,
      dedup_key: text,
      more: fc.array(text, { maxLength: 60 }),
    }),
  )
  const topic = fc.oneof(text, fc.constantFrom('incident.escalated', 'incident.resolved', 'deploy.done'))
  fc.assert(
    fc.property(payload, topic, fc.option(text), (payload, topic, tenant) => {
      const made = pagerdutyMessage(
        anEvent({ payload, topic: topic.trim() === '' ? 'x' : topic, tenant }),
        'tms',
        'https://t.example/1',
      )
      if (made === null) return
      const body = JSON.stringify({ routing_key: routingKey, ...made.body })
      const checked = checkPagerduty({ path: made.path, headers: { 'content-type': 'application/json' }, body }, 'POST')
      expect(checked).toHaveProperty('event')
    }),
    { numRuns: 200 },
  )
})

test('the server of these tests refuses what PagerDuty refuses, or the test above would show nothing', () => {
  const check = (event: unknown, path = '/v2/enqueue') =>
    'event' in
    checkPagerduty({ path, headers: { 'content-type': 'application/json' }, body: JSON.stringify(event) }, 'POST')
  const payload = { summary: 'x', source: 'x', severity: 'info' }
  const event = { routing_key: routingKey, event_action: 'trigger', payload }
  expect(check(event)).toBe(true)
  const wrong: readonly unknown[] = [
    { ...event, routing_key: 'x' },
    { ...event, event_action: 'open' },
    { ...event, dedup_key: 'x'.repeat(256) },
    { ...event, payload: { ...payload, summary: 'x'.repeat(1025) } },
    { ...event, payload: { ...payload, summary: '' } },
    { ...event, payload: { ...payload, severity: 'P1' } },
    { ...event, payload: { ...payload, source: '' } },
    { ...event, payload: { ...payload, custom_details: 'x'.repeat(513 * 1024) } },
    { routing_key: routingKey, event_action: 'resolve' },
    {},
  ]
  expect(wrong.map((each) => check(each))).toEqual(wrong.map(() => false))
})

test('a long key stays the same, differs from its neighbours and fits', () => {
  fc.assert(
    fc.property(fc.string({ minLength: 256, maxLength: 400 }), (key) => {
      expect(dedupKeyOf(key)).toBe(dedupKeyOf(key))
      expect(dedupKeyOf(key).length).toBeLessThanOrEqual(255)
      expect(dedupKeyOf(key)).not.toBe(dedupKeyOf(`${key}x`))
    }),
  )
})
