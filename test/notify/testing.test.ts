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
async function aTest(...troubles: readonly Trouble[]) {
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
  let lost: Error | null = null
  const run = (onPause: () => void = () => undefined, fromTheFirst = false) =>
    testTarget(driver, {
      ...aContext(),
      signal: stop.signal,
      clock: () => new Date(now),
      fetch: async (...sent) => {
        if (!fromTheFirst) pager.misbehave = pager.alerts.length === 0 ? null : (troubles[pager.requests - 1] ?? null)
        const answered = await fetch(...sent)
        const error = lost
        lost = null
        if (error !== null) throw error
        return answered
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
  /** The first answer is lost on its way, so. */
  const lose = (code: string) => {
    lost = Object.assign(new Error('lost'), { code })
  }
  return { pager, pauses, stop, run, lose }
}

const always = (trouble: Trouble) => Array.from({ length: 20 }, () => trouble)

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

test('of which the answer is lost may have arrived: that is said, and its alert is ended', async () => {
  const { pager, run, lose } = await aTest()
  lose('ECONNRESET')
  const tested = await run()
  expect(pager.alerts.map(({ state }) => state)).toEqual(['resolved'])
  expect(tested).toMatchObject({ arrived: null, open: null, steps: [{ what: 'sent' }, { what: 'ended' }] })
  expect(testProblem(tested)).toMatchObject({
    code: 'TOOL_FAILED',
    what: 'whether the test of pager arrived is not known',
    why: 'no answer (ECONNRESET): it may have arrived',
  })
  const shown = JSON.stringify(testedView(tested))
  expect(shown).toContain('NO ANSWER: it may have arrived')
  expect(shown).not.toContain('DID NOT ARRIVE')
})

test('of which both answers are lost names the alert that may be open', async () => {
  const { pager, run, lose } = await aTest(...always(answer(400)))
  lose('UND_ERR_SOCKET')
  const tested = await run()
  expect([tested.arrived, tested.open]).toEqual([null, pager.alerts[0]?.dedupKey])
  expect(testProblem(tested)?.why).toMatch(/^no answer \(UND_ERR_SOCKET\).*is still open unless PagerDuty shows/)
})

test.each([
  ['was refused', answer(500), 'answered 500'],
  ['could not be sent', 'ECONNREFUSED', 'no answer (ECONNREFUSED)'],
])('that %s did not arrive', async (_what, trouble, why) => {
  const { pager, run, lose } = await aTest()
  if (typeof trouble === 'string') lose(trouble)
  else pager.misbehave = trouble
  const tested = await run(undefined, typeof trouble !== 'string')
  expect(testProblem(tested)).toMatchObject({ what: 'the test of pager did not arrive', why })
  expect(tested).toMatchObject({ arrived: false, open: null })
})

test('that is broken off is not tried again, and the alert is said to be open', async () => {
  const { pager, pauses, stop, run } = await aTest(...always(answer(500)))
  const tested = await run(() => stop.abort())
  expect([pager.requests, pauses, tested.open]).toEqual([2, [1000], pager.alerts[0]?.dedupKey])
})
