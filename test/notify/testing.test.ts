import { expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { testProblem, testTarget } from '../../src/notify/notify.ts'
import { testedView } from '../../src/notify/views.ts'
import { redact } from '../../src/redaction/redact.ts'
import { aContext, answer } from '../outbox/targets/receivers.ts'
import { routingKey, startPagerduty } from './pagerduty-server.ts'

/** The end of the alert that a test of a pager makes. */

type Trouble = ReturnType<typeof answer>

/** A pager that takes what begins, and answers what ends with each of these first; the last one again and again. */
async function aTest(...troubles: readonly [Trouble, ...Trouble[]]) {
  const pager = await startPagerduty()
  const config = { routingKeyFrom: { env: 'KEY' }, baseUrl: pager.url, hosts: ['127.0.0.1'] }
  const driver: Driver = {
    target: { name: 'here', consentName: 'here', shared: false },
    // True because a test of a target asks for nothing but the target.
    call: (async () => ({ name: 'pager', kind: 'pagerduty', config })) as unknown as Driver['call'],
    listen: async () => async () => undefined,
    close: async () => undefined,
  }
  const pauses: number[] = []
  const stop = new AbortController()
  let now = Date.parse('2026-11-20T09:30:00Z')
  const run = (onPause: () => void = () => undefined) =>
    testTarget(driver, {
      ...aContext(),
      signal: stop.signal,
      clock: () => new Date(now),
      fetch: async (...sent) => {
        pager.misbehave = pager.alerts.length === 0 ? null : (troubles[pager.requests - 1] ?? null)
        return fetch(...sent)
      },
      pause: async (ms) => {
        pauses.push(ms)
        now += ms
        onPause()
      },
      target: 'pager',
      secrets: async () => routingKey,
      host: 'box',
      database: 'here',
    })
  return { pager, pauses, stop, run }
}

const always = (trouble: Trouble) => Array.from({ length: 20 }, () => trouble) as [Trouble, ...Trouble[]]

test('is tried again when the pager asks for a moment', async () => {
  const { pager, pauses, run } = await aTest(answer(429, { 'retry-after': '2' }), answer(500))
  const tested = await run()
  expect([pager.alerts[0]?.state, pauses]).toEqual(['resolved', [2000, 1000]])
  expect([tested.steps.map(({ what }) => what), tested.open, testProblem(tested)]).toEqual([
    ['sent', 'ended'],
    null,
    null,
  ])
})

test.each([
  ['asks for more than a moment', always(answer(429, { 'retry-after': '30' })), []],
  ['asks for no time at all, for ever', always(answer(429, { 'retry-after': '0' })), [1000, 1000, 1000, 1000, 1000]],
  ['refuses it', always(answer(400)), []],
])('that a pager %s is left, and the alert is said to be open', async (_what, troubles, waited) => {
  const { pager, pauses, run } = await aTest(...troubles)
  const tested = await run()
  const key = pager.alerts[0]?.dedupKey
  expect(pauses).toEqual(waited)
  expect([tested.arrived, tested.open, pager.alerts[0]?.state]).toEqual([true, key, 'triggered'])
  expect(testProblem(tested)).toMatchObject({
    code: 'TOOL_FAILED',
    what: 'the test of pager arrived, but its alert could not be ended',
    why: expect.stringContaining(`The alert with dedup_key ${key} is still open`),
  })
  expect(redact(testProblem(tested))).toEqual(testProblem(tested))
  const shown = JSON.stringify(redact(testedView(tested)))
  expect(shown).toContain(key)
  expect(shown).not.toContain('DID NOT ARRIVE')
})

test('that is broken off is not tried again, and the alert is said to be open', async () => {
  const { pager, pauses, stop, run } = await aTest(...always(answer(500)))
  const tested = await run(() => stop.abort())
  expect([pager.requests, pauses, tested.open]).toEqual([2, [1000], pager.alerts[0]?.dedupKey])
})
