import fc from 'fast-check'
import { expect, test } from 'vitest'
import { openTarget } from '../../../src/outbox/targets/kinds.ts'
import { slackMessage } from '../../../src/outbox/targets/slack-message.ts'
import type { Event, Json } from '../../../src/outbox/targets/target.ts'
import { aContext, anEvent, answer, receiver } from './receivers.ts'
import { checkSlack, slackPath } from '../../notify/slack-server.ts'

async function aSlack(config: Readonly<Record<string, unknown>> = {}) {
  const there = await receiver(checkSlack)
  const target = openTarget('slack', { urlFrom: { env: 'SLACK' }, hosts: ['127.0.0.1'], ...config })
  const send = (event: Partial<Event> = {}) =>
    target.send(async () => there.url + slackPath, anEvent(event), aContext())
  return { there, send }
}

/** What the server of the tests says about a message, without sending it. */
function verdict(event: Partial<Event>): string {
  const body = JSON.stringify(slackMessage(anEvent(event), 'https://traces.example/1'))
  return checkSlack({ path: slackPath, headers: { 'content-type': 'application/json' }, body }, 'POST')[1]
}

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 400 }),
  fc.constantFrom('', ' ', '\n', '<!channel>', '&'.repeat(160), '👩‍🚀'.repeat(90), '\ud800', '<'.repeat(3500)),
)

test('whatever is in the event, Slack accepts the message', () => {
  const long = fc
    .tuple(text, fc.integer({ min: 1, max: 900 }))
    .map(([part, times]) => part.repeat(times).slice(0, 200_000))
  const payload: fc.Arbitrary<Json> = fc.oneof(
    fc.jsonValue() as fc.Arbitrary<Json>,
    fc.record({ title: long, text: long, fields: fc.dictionary(text, fc.oneof(text, fc.integer()), { maxKeys: 80 }) }),
  )
  fc.assert(
    fc.property(payload, text, text, (payload, topic, tenant) => {
      expect(verdict({ payload, topic, tenant })).toBe('ok')
    }),
    { numRuns: 100 },
  )
})

test('the server of these tests refuses what Slack refuses, or the test above would show nothing', () => {
  const check = (message: unknown) =>
    checkSlack(
      { path: slackPath, headers: { 'content-type': 'application/json' }, body: JSON.stringify(message) },
      'POST',
    )
  const header = (length: number) => ({ type: 'header', text: { type: 'plain_text', text: 'x'.repeat(length) } })
  const section = (length: number) => ({ type: 'section', text: { type: 'mrkdwn', text: 'x'.repeat(length) } })
  expect(check({ blocks: [header(150), section(3000)] })).toEqual([200, 'ok'])
  expect(check({})).toEqual([400, 'no_text'])
  expect(check([])).toEqual([400, 'invalid_payload'])
  for (const block of [header(151), header(0), section(3001), section(0), { type: 'section' }, {}]) {
    expect(check({ blocks: [block] })).toEqual([400, 'invalid_blocks'])
  }
  expect(check({ blocks: Array<unknown>(51).fill(section(1)) })).toEqual([400, 'invalid_blocks'])
})

test('an event is a headline, its text, its fields, a button to the trace and the delivery id', () => {
  const payload = { title: 'Load L-1 is late', text: 'by *2 h*', fields: { carrier: 'ACME & Co', delay: 7200 } }
  const { text, blocks } = slackMessage(anEvent({ payload }), 'https://traces.example/4bf9')
  expect(text).toBe('Load L-1 is late')
  expect(blocks).toMatchObject([
    { type: 'header', text: { type: 'plain_text', text: 'Load L-1 is late' } },
    { type: 'section', text: { text: 'by *2 h*' } },
    { type: 'section', fields: [{ text: '*carrier*\nACME &amp; Co' }, { text: '*delay*\n7200' }] },
    { type: 'actions', elements: [{ type: 'button', text: { text: 'Trace' }, url: 'https://traces.example/4bf9' }] },
    {
      type: 'context',
      elements: [{ text: `load.booked · acme · ${anEvent().createdAt} · delivery ${anEvent().deliveryId}` }],
    },
  ])
})

test('more fields than fit are left out', () => {
  const fields = Object.fromEntries(Array.from({ length: 600 }, (_, index) => [`f${index}`, index]))
  expect(verdict({ payload: { title: 'many', text: 'x'.repeat(200_000), fields } })).toBe('ok')
})

test('any other payload is shown as JSON under its topic', () => {
  const { blocks } = slackMessage(anEvent({ payload: { a: [1] } }), null)
  expect(blocks).toMatchObject([
    { text: { text: 'load.booked' } },
    { text: { text: '{\n "a": [\n  1\n ]\n}' } },
    { type: 'context' },
  ])
})

test('nothing in an event mentions a channel, makes a link, or hides where it leads', () => {
  const attack = '<!channel> <@U1> <https://evil.example|https://bank.example> & &lt;!here&gt;'
  const payload = { title: attack, text: attack, fields: { [attack]: attack } }
  const message = JSON.stringify(slackMessage(anEvent({ payload, topic: attack, tenant: attack }), null))
  expect(message).not.toMatch(/[<>]/)
  expect(message).toContain('&amp;lt;!here&amp;gt;')
  // Without it Slack would make links of plain addresses, too.
  const markdown = message.match(/"type":"mrkdwn"/g)?.length
  expect(message.match(/"verbatim":true/g)?.length).toBe(markdown)
})

test('long text is cut between characters and escapes, and says that it was cut', () => {
  const { blocks } = slackMessage(anEvent({ payload: { title: '&'.repeat(200), text: '&👍'.repeat(100_000) } }), null)
  const header = blocks[0]
  if (header?.type !== 'header') throw new Error('no header')
  expect(header.text.text).toMatch(/^(&amp;)+…$/)
  expect(blocks).toHaveLength(50)
  expect(blocks.at(-2)).toMatchObject({ text: { text: '… the rest does not fit' } })
  for (const block of blocks.slice(1, -2)) {
    expect('text' in block && block.text.text.replaceAll('&amp;', '').replaceAll('👍', '')).toBe('')
  }
})

test('the trace link is built from the configured address, and left out without a trace', async () => {
  const { there, send } = await aSlack({ traceUrl: 'https://traces.example/t/{traceId}?o=1|2' })
  await send()
  await send({ traceparent: null })
  const [one, two] = there.received
  expect(one?.body).toContain('"url":"https://traces.example/t/4bf92f3577b34da6a3ce929d0e0e4736?o=1|2"')
  expect(two?.body).not.toContain('traces.example')
})

test.each([
  [400, 'invalid_payload', 'rejected'],
  [404, 'no_service', 'rejected'],
  [410, 'channel_is_archived', 'rejected'],
  [200, 'no_active_hooks', 'rejected'],
  [500, 'rollup_error', 'retry'],
  [200, '<html>please log in</html>', 'retry'],
])('Slack answers %i %s: %s', async (status, said, kind) => {
  const { there, send } = await aSlack()
  there.misbehave = answer(status, {}, said)
  const outcome = await send()
  expect(outcome.kind).toBe(kind)
  expect(JSON.stringify(outcome)).not.toContain('html')
})

test('a permanent refusal says what to do', async () => {
  const { there, send } = await aSlack()
  there.misbehave = answer(404, {}, 'no_service')
  expect(await send()).toEqual({
    kind: 'rejected',
    why: 'answered 404 no_service: the webhook was switched off or removed: make a new one',
  })
})

test('when Slack has had too much it is asked again when it says', async () => {
  const { there, send } = await aSlack()
  there.misbehave = answer(429, { 'retry-after': '30' }, 'rate_limited')
  expect(await send()).toEqual({ kind: 'retry', why: 'answered 429', afterMs: 30_000 })
})

test('an address that is not one of Slack needs its host in the list', async () => {
  const { there, send } = await aSlack({ hosts: [] })
  expect(await send()).toMatchObject({ kind: 'rejected', why: expect.stringContaining('not one of Slack') })
  const https = openTarget('slack', { urlFrom: { env: 'SLACK' } })
  const context = aContext({ lookup: async () => ['93.184.216.34'], fetch: async () => new Response('ok') })
  const send2 = (url: string) => https.send(async () => url, anEvent(), context)
  expect(await send2('https://hooks.slack.com/services/x')).toMatchObject({ kind: 'delivered' })
  expect(await send2('https://hooks.slack.com.evil.example/services/x')).toMatchObject({ kind: 'rejected' })
  expect(await send2('https://hooks.slack.com:8443/services/x')).toMatchObject({ kind: 'rejected' })
  expect(await send2('http://hooks.slack.com/services/x')).toMatchObject({ kind: 'rejected' })
  expect(there.requests).toBe(0)
})
