import { expect, test } from 'vitest'
import { directChannels, notifyDirectly, type DirectMessage } from '../../src/notify/directly.ts'
import { answer, hang, receiver, resetRequest } from '../outbox/targets/receivers.ts'
import { routingKey, startPagerduty } from './pagerduty-server.ts'
import { startSlack } from './slack-server.ts'

/** Telling people while the database is gone. */

const message: DirectMessage = {
  topic: 'fleet.halted',
  title: 'The fleet was told to stop, and the database does not answer',
  text: 'Workers on host a obey a stop file. Others are unknown.',
  severity: 'critical',
  dedupKey: 'emergency-stop',
  fields: { database: 'db.example/tms', by: 'ann@acme.example' },
}

async function everybody() {
  const [slack, pagerduty, alert] = [await startSlack(), await startPagerduty(), await receiver(() => [200, 'thanks'])]
  const channels = {
    slack: slack.webhook,
    pagerduty: { routingKey, baseUrl: pagerduty.url },
    alert: `${alert.url}/path-token-31`,
    fetch,
    clock: () => new Date(),
  }
  return { slack, pagerduty, alert, channels }
}

test('all channels are told, and none of them hears a personal detail', async () => {
  const { slack, pagerduty, alert, channels } = await everybody()
  const results = await notifyDirectly(channels, message)
  expect(results.map(({ channel, told }) => [channel, told])).toEqual([
    ['slack', true],
    ['pagerduty', true],
    ['alert', true],
  ])
  expect(pagerduty.alerts).toEqual([
    { routingKey, dedupKey: 'emergency-stop', summary: message.title, severity: 'critical', state: 'triggered' },
  ])
  const bodies = [...slack.received, ...pagerduty.received, ...alert.received].map(({ body }) => body)
  for (const body of bodies) expect(body).toContain('db.example/tms')
  expect(bodies.join('')).not.toContain('ann@')
})

test('said twice it is one alert', async () => {
  const { pagerduty, channels } = await everybody()
  await notifyDirectly(channels, message)
  await notifyDirectly(channels, message)
  expect(pagerduty.alerts).toHaveLength(1)
})

test('what ends it ends the alert', async () => {
  const { pagerduty, channels } = await everybody()
  await notifyDirectly(channels, message)
  await notifyDirectly(channels, { ...message, ends: true })
  expect(pagerduty.alerts).toMatchObject([{ dedupKey: 'emergency-stop', state: 'resolved' }])
})

test('each channel answers for itself: one that hangs, refuses or breaks off keeps no other from being told', async () => {
  const { slack, pagerduty, alert, channels } = await everybody()
  slack.misbehave = hang
  alert.misbehave = resetRequest
  const results = await notifyDirectly({ ...channels, limitMs: 200 }, message)
  expect(results).toEqual([
    // It may have been read before it was cut: nobody knows.
    { channel: 'slack', told: null, why: 'no answer within 200 ms: it may have arrived' },
    { channel: 'pagerduty', told: true, why: 'accepted by PagerDuty (202)' },
    { channel: 'alert', told: null, why: expect.stringMatching(/^no answer \(.*it may have arrived$/) },
  ])
  slack.misbehave = answer(404, {}, 'no_service')
  pagerduty.misbehave = answer(429, { 'retry-after': '60' })
  alert.misbehave = answer(500)
  expect(await notifyDirectly(channels, message)).toEqual([
    { channel: 'slack', told: false, why: expect.stringContaining('no_service') },
    { channel: 'pagerduty', told: false, why: 'answered 429' },
    { channel: 'alert', told: false, why: 'answered 500' },
  ])
})

test('all hang at once, and it takes one limit and not three', async () => {
  const { slack, pagerduty, alert, channels } = await everybody()
  const arrived: string[] = []
  for (const [name, each] of Object.entries({ slack, pagerduty, alert })) {
    each.misbehave = (request) => {
      arrived.push(name)
      request.resume()
    }
  }
  const results = await notifyDirectly({ ...channels, limitMs: 300 }, message)
  expect(results.map(({ told }) => told)).toEqual([null, null, null])
  expect(arrived.sort()).toEqual(['alert', 'pagerduty', 'slack'])
})

test('an address that anybody on the way could read is not used, and no answer quotes an address or a key', async () => {
  const results = await notifyDirectly(
    {
      slack: 'http://hooks.slack.example/services/secret-1',
      pagerduty: { routingKey: 'short-secret-2' },
      alert: 'not a url secret-3',
      fetch: () => Promise.reject(new Error('nothing may be sent')),
      clock: () => new Date(),
    },
    message,
  )
  expect(results.map(({ told }) => told)).toEqual([false, false, false])
  expect(JSON.stringify(results)).not.toMatch(/secret|nothing may be sent/)
})

test('the channels are those whose variables are set', () => {
  expect(directChannels({})).toEqual({ slack: null, pagerduty: null, alert: null })
  expect(
    directChannels({ SLACK_WEBHOOK_URL: 'a', PAGERDUTY_ROUTING_KEY: 'b', PAGERDUTY_URL: 'c', ALERT_WEBHOOK_URL: '' }),
  ).toEqual({ slack: 'a', pagerduty: { routingKey: 'b', baseUrl: 'c' }, alert: null })
})
