import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Contract } from '../../src/drivers/contract.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { notifyStatus, testProblem, testTarget, unknownStatus, watchNotifications } from '../../src/notify/notify.ts'
import { startDelivery, type Deliverer } from '../../src/outbox/deliver.ts'
import { retryDeliveries, showDelivery } from '../../src/outbox/outbox.ts'
import { retriedView } from '../../src/outbox/views.ts'
import { pagerdutyActions, pagerdutyMessage } from '../../src/outbox/targets/pagerduty-message.ts'
import { createLogger } from '../../src/redaction/logger.ts'
import { sqlBeside, subjects } from '../contract/subjects.ts'
import { readyFleet, type Fleet } from '../fleet/fleet.ts'
import { anEvent, answer, hang, resetRequest } from '../outbox/targets/receivers.ts'
import { resumeNow } from '../incident/fixture.ts'
import { until as eventually } from '../servers/process.ts'
import { routingKey, startPagerduty } from './pagerduty-server.ts'
import { startSlack } from './slack-server.ts'

/** From an incident to the people who must hear of it, over the outbox, with servers that check what the real ones check. */

const until = (check: () => boolean | Promise<boolean>) => eventually('what is awaited', check)

type Target = Contract['outbox_targets_set']['args']['targets'][number]

describe.each(Object.entries(subjects))('through the %s driver', (name, make) => {
  let fleet: Fleet
  let operator: Driver
  const running = new Set<Deliverer>()
  const places: Record<string, string> = { PAGERDUTY_ROUTING_KEY: routingKey }

  beforeAll(async () => {
    fleet = await readyFleet(await make())
    operator = fleet.operator
  })
  beforeEach(async () => {
    for (const table of ['outbox_deliveries', 'outbox_events', 'outbox_keys', 'incidents'])
      await sql(`delete from tms.${table}`)
  })
  afterEach(async () => {
    await Promise.all([...running].map((each) => each.stop()))
    running.clear()
  })
  afterAll(() => fleet.stop())

  const sql = (text: string) => sqlBeside(fleet.subject, fleet.operator)(text)
  const secrets = async (source: { env: string } | { file: string }) =>
    'env' in source ? (places[source.env] ?? '') : ''
  const context = {
    fetch,
    lookup: async () => ['127.0.0.1'],
    clock: () => new Date(),
    random: (bytes: number) => crypto.getRandomValues(new Uint8Array(bytes)),
    folder: '/nonexistent',
    timeoutMs: 60_000,
  }

  async function deliver(): Promise<void> {
    running.add(
      await startDelivery({
        driver: fleet.worker,
        secrets,
        log: createLogger({ write: () => undefined, clock: () => new Date() }),
        pollMs: 50,
        ...context,
      }),
    )
  }

  /** Both servers, as the targets of the database. */
  async function people(change: Partial<Target> = {}) {
    const [slack, pager] = [await startSlack(), await startPagerduty()]
    places['SLACK_WEBHOOK_URL'] = slack.webhook
    const hosts = ['127.0.0.1']
    const topics = ['incident.*', 'fleet.*', 'security.*']
    const targets: Target[] = [
      { name: 'slack', kind: 'slack', topics, config: { urlFrom: { env: 'SLACK_WEBHOOK_URL' }, hosts }, ...change },
      {
        name: 'pager',
        kind: 'pagerduty',
        topics,
        config: { routingKeyFrom: { env: 'PAGERDUTY_ROUTING_KEY' }, baseUrl: pager.url, hosts },
        ...change,
      },
    ]
    granted(await operator.call('outbox_targets_set', { request_id: randomUUID(), targets }))
    return { slack, pager }
  }

  /** As the functions of others call it, within a transaction of somebody who is known. */
  const open = (priority: string, key: string) =>
    sql(
      `select tms._incident_open('${priority}', 'test', '${key}', null, 'Stock below zero', '{}', 'the test')::text as id`,
    )
  const delivered = async (target: string) =>
    Number(
      (
        await sql(
          `select count(*)::int as n from tms.outbox_deliveries where target = '${target}' and status = 'delivered'`,
        )
      )[0]?.['n'],
    )

  test('an incident reaches Slack and the pager, and its end ends the alert', async () => {
    const { slack, pager } = await people()
    await deliver()
    await open('P1', 'stock')
    await until(() => pager.alerts.length === 1 && slack.received.length === 1)
    expect(pager.alerts).toMatchObject([{ severity: 'critical', summary: 'Stock below zero', state: 'triggered' }])
    expect(slack.received[0]?.body).toContain('Stock below zero')
    await sql(`select tms._incident_clear('stock', 'counted again')`)
    await until(() => pager.alerts[0]?.state === 'resolved' && slack.received.length === 2)
  })

  test('an alert that can not be delivered yet is not ended before it began', async () => {
    const { pager } = await people()
    pager.misbehave = answer(429, { 'retry-after': '2' })
    await deliver()
    await open('P1', 'stock')
    await until(() => pager.requests > 0)
    // Recorded: from here on it waits, and what comes behind it could overtake.
    await until(
      async () => (await sql(`select from tms.outbox_deliveries where next_at > clock_timestamp()`)).length === 1,
    )
    pager.misbehave = null
    await sql(`select tms._incident_clear('stock', 'counted again')`)
    await until(async () => (await delivered('pager')) === 2)
    expect(pager.alerts).toMatchObject([{ state: 'resolved' }])
  })

  test.each([
    ['429', answer(429, { 'retry-after': '0' })],
    ['500', answer(500)],
    ['a hang', hang],
    ['a reset', resetRequest],
  ])('%s is tried again until it arrives, and makes one alert', async (_what, trouble) => {
    const { pager, slack } = await people()
    let first = true
    pager.misbehave = (request, response) => {
      if (first) trouble(request, response)
      else answer(500)(request, response)
      first = false
      pager.misbehave = null
    }
    if (trouble === hang) {
      const timeoutMs = 3000
      const driver = fleet.worker
      const log = createLogger({ write: () => undefined, clock: () => new Date() })
      running.add(await startDelivery({ driver, secrets, log, pollMs: 50, ...context, timeoutMs }))
    } else await deliver()
    await open('P1', 'stock')
    await until(() => pager.alerts.length === 1)
    await until(async () => (await delivered('pager')) === 1)
    expect(pager.requests).toBeGreaterThan(1)
    expect(pager.alerts).toHaveLength(1)
    // The one's trouble is not the other's.
    expect(slack.received).toHaveLength(1)
  })

  test('what is refused is dead at once, seen in the outbox without a tenant, and can be tried again', async () => {
    const { slack, pager } = await people()
    slack.misbehave = answer(404, {}, 'no_service')
    await deliver()
    await open('P1', 'stock')
    await until(async () => (await sql(`select from tms.outbox_deliveries where status = 'dead'`)).length === 1)
    expect(slack.requests).toBe(1)
    const [row] = await sql(`select id::text from tms.outbox_deliveries where status = 'dead'`)
    const id = String(row?.['id'])
    expect(await showDelivery(operator, { id })).toMatchObject({ tenant: null, status: 'dead', target: 'slack' })
    const status = await notifyStatus(operator)
    expect(status.verdict).toBe('failing')
    expect(status.targets).toMatchObject([
      { name: 'pager', failing: null },
      { name: 'slack', lost: 1, failing: 'its last deliveries died', error: expect.stringContaining('no_service') },
    ])
    slack.misbehave = null
    expect(await retryDeliveries(operator, { ids: [id], why: 'a new webhook' })).toMatchObject({ retried: 1 })
    await until(async () => (await notifyStatus(operator)).verdict === 'ok')
    expect(pager.alerts).toHaveLength(1)
  })

  test('what would page is not sent again once the end of its alert has arrived', async () => {
    const { pager } = await people()
    pager.misbehave = answer(400)
    await deliver()
    await open('P1', 'stock')
    await until(async () => (await sql(`select from tms.outbox_deliveries where status = 'dead'`)).length === 1)
    pager.misbehave = null
    const [row] = await sql(`select id::text from tms.outbox_deliveries where status = 'dead'`)
    const ids = [String(row?.['id'])]
    await sql(`select tms._incident_clear('stock', 'counted again')`)
    await until(async () => (await delivered('pager')) === 1)
    const retried = await retryDeliveries(operator, { ids, why: 'the pager is well' })
    expect(retried).toMatchObject({ retried: 0 })
    expect(JSON.stringify(retriedView(retried))).toContain('ended meanwhile')
    expect(pager.alerts).toEqual([])
  })

  test('a target that fails is an incident which the others hear of, and which it does not wait for itself', async () => {
    const { slack, pager } = await people()
    slack.misbehave = answer(404, {}, 'no_service')
    await deliver()
    await open('P1', 'stock')
    await until(async () => (await sql(`select from tms.outbox_deliveries where status = 'dead'`)).length === 1)
    const before = slack.requests
    // Again and again: it stays one incident, one message to the others, and none to the one that fails.
    for (let n = 0; n < 5; n++)
      expect((await watchNotifications(operator)).failing).toEqual([
        { target: 'slack', why: 'its last deliveries died' },
      ])
    expect(
      await sql(`select priority, status, occurrences::int as n from tms.incidents where dedupe_key = 'notify:slack'`),
    ).toEqual([{ priority: 'P2', status: 'OPEN', n: 5 }])
    await until(
      async () => (await sql(`select from tms.outbox_deliveries where status in ('pending', 'sending')`)).length === 0,
    )
    expect(
      await sql(
        `select target from tms.outbox_deliveries d join tms.outbox_events e on e.id = d.event_id where e.payload ->> 'type' = 'notify'`,
      ),
    ).toEqual([{ target: 'pager' }])
    expect(slack.requests).toBe(before)
    slack.misbehave = null
    const [row] = await sql(`select id::text from tms.outbox_deliveries where status = 'dead'`)
    await retryDeliveries(operator, { ids: [String(row?.['id'])], why: 'a new webhook' })
    await until(async () => (await notifyStatus(operator)).verdict === 'ok')
    expect(await watchNotifications(operator)).toEqual({ failing: [], cleared: 1 })
    expect(pager.alerts).toMatchObject([{ summary: 'Stock below zero' }])
  })

  const dead = async () => (await sql(`select from tms.outbox_deliveries where status = 'dead'`)).length
  const announce = (topic: string, key: string) =>
    sql(`select tms._incident_announce('${topic}', i, '${topic}') from tms.incidents i where i.dedupe_key = '${key}'`)
  const failing = async () => (await watchNotifications(operator)).failing.map(({ target }) => target)

  test('what pages nobody is no arrival: neither is a pager well by it, nor a lost page over', async () => {
    const { pager } = await people()
    pager.misbehave = answer(400)
    await deliver()
    await open('P4', 'small')
    await until(async () => (await delivered('pager')) === 1 && (await delivered('slack')) === 1)
    const untried = await notifyStatus(operator)
    expect(untried.verdict).toBe('unknown')
    expect(unknownStatus(untried)?.next).toEqual(['tms notify test pager'])
    await open('P1', 'stock')
    await until(async () => (await dead()) === 1)
    expect(await failing()).toEqual(['pager'])
    await open('P4', 'another')
    await until(async () => (await delivered('pager')) === 2)
    expect(await watchNotifications(operator)).toMatchObject({ failing: [{ target: 'pager' }], cleared: 0 })
    expect(await notifyStatus(operator)).toMatchObject({ verdict: 'failing', targets: [{ lost: 1 }, { lost: 0 }] })
  })

  test('who hears of nothing but what is late learns why, and the alert ends with its incident', async () => {
    const { slack, pager } = await people({ topics: ['incident.late', 'incident.resolved'] })
    await deliver()
    await open('P1', 'stock')
    await sql(`update tms.incidents set response_due = now() - interval '1 second'`)
    expect(granted(await operator.call('incident_cycle', { request_id: randomUUID() })).late).toHaveLength(1)
    await until(() => pager.alerts.length === 1 && slack.received.length === 1)
    expect(pager.alerts).toMatchObject([{ severity: 'critical', summary: 'Stock below zero', state: 'triggered' }])
    const said = [...pager.received, ...slack.received].map(({ body }) => body)
    for (const body of said) expect(body).toMatch(/nobody and nothing acted on it by \d{4}-/)
    await sql(`select tms._incident_clear('stock', 'counted again')`)
    await until(() => pager.alerts[0]?.state === 'resolved')
  })

  test('a pager that hears of no lift by its topics ends the alert of a second halt all the same', async () => {
    const { pager } = await people({ topics: ['incident.opened', 'incident.resolved'] })
    await deliver()
    const press = async () => {
      const { halt } = granted(await operator.call('fence_halt', { why: 'a test', grace_ms: 0 }))
      const pressed = await operator.call('incident_press', { request_id: randomUUID(), halt: halt ?? '' })
      return granted(pressed).incident
    }
    const id = await press()
    for (const step of ['prepare', 'lift'] as const)
      granted(await operator.call('incident_resume', { request_id: randomUUID(), id, step }))
    await press()
    await until(() => pager.alerts.length === 2)
    await resumeNow(operator, id)
    await until(() => pager.alerts.every(({ state }) => state === 'resolved'))
    // Who reads is told what they asked for.
    const lifts = await sql(
      `select d.target from tms.outbox_deliveries d join tms.outbox_events e on e.id = d.event_id where e.topic = 'incident.lifted'`,
    )
    expect(lifts).toEqual([{ target: 'pager' }])
  })

  test('a lost page stays in sight while its incident is open, until a later word of the same one arrives', async () => {
    const { pager } = await people()
    pager.misbehave = answer(400)
    await deliver()
    await open('P1', 'stock')
    await until(async () => (await dead()) === 1)
    pager.misbehave = null
    await open('P1', 'another')
    // A change event: PagerDuty takes it, and nobody is paged.
    await announce('fleet.resumed', 'stock')
    await until(async () => (await delivered('pager')) === 2)
    expect(await watchNotifications(operator)).toEqual({
      failing: [{ target: 'pager', why: 'it lost word of an incident that is open' }],
      cleared: 0,
    })
    expect((await notifyStatus(operator)).verdict).toBe('failing')
    await announce('incident.escalated', 'stock')
    await until(async () => (await delivered('pager')) === 3)
    expect(await watchNotifications(operator)).toEqual({ failing: [], cleared: 1 })
    expect((await notifyStatus(operator)).verdict).toBe('ok')
  })

  if (name === 'postgres')
    test('a lost page among many deliveries is found by its index: a look must end while everything fails', async () => {
      const { pager } = await people()
      pager.misbehave = answer(400)
      await open('P1', 'stock')
      await sql(`update tms.outbox_deliveries set status = 'dead'`)
      await sql(`insert into tms.outbox_deliveries (event_id, target, company_id, ordering_key, status, created_at, delivered_at)
        select 1, 'hook', (select id from tms.companies limit 1), 'k' || g % 1000, 'delivered', now(), now() from generate_series(1, 20000) g`)
      await sql('analyze tms.outbox_deliveries')
      expect(await failing()).toEqual(['pager', 'slack'])
      const used = `select idx_scan::int as n from pg_stat_user_indexes where indexrelname = 'outbox_deliveries_halt'`
      await until(async () => Number((await sql(used))[0]?.['n']) > 0)
    })

  test('what was lost of an incident that is over is no trouble once something else arrives', async () => {
    const { slack } = await people()
    slack.misbehave = answer(404)
    await deliver()
    await open('P1', 'stock')
    await until(async () => (await dead()) === 1)
    await sql(`select tms._incident_clear('stock', 'counted again')`)
    await until(async () => (await dead()) === 2)
    slack.misbehave = null
    await open('P1', 'another')
    await until(async () => (await delivered('slack')) === 1)
    expect(await failing()).toEqual([])
  })

  test('two targets that failed at once do not keep each other failing', async () => {
    const both = [await startSlack(), await startSlack()]
    const targets = both.map(({ webhook }, n): Target => {
      places[`SLACK_${n}`] = webhook
      const config = { urlFrom: { env: `SLACK_${n}` }, hosts: ['127.0.0.1'] }
      return { name: `slack-${n}`, kind: 'slack', topics: ['incident.*'], config }
    })
    granted(await operator.call('outbox_targets_set', { request_id: randomUUID(), targets }))
    for (const each of both) each.misbehave = answer(404)
    await deliver()
    await open('P2', 'stock')
    await until(async () => (await dead()) === 2)
    expect(await failing()).toEqual(['slack-0', 'slack-1'])
    await until(async () => (await dead()) === 4)
    for (const each of both) each.misbehave = null
    await sql(`select tms._incident_clear('stock', 'counted again')`)
    await until(async () => (await delivered('slack-0')) === 1 && (await delivered('slack-1')) === 1)
    expect(await watchNotifications(operator)).toEqual({ failing: [], cleared: 2 })
  })

  test('what calls only to the gravest is watched as well', async () => {
    const { slack, pager } = await people()
    const config = { urlFrom: { env: 'SLACK_WEBHOOK_URL' }, hosts: ['127.0.0.1'] }
    const only = (name: string, topics: string[]): Target => ({ name, kind: 'slack', topics, config })
    const { kind, config: pages } = granted(await operator.call('notify_target', { target: 'pager' }))
    const targets = [
      { ...only('pager', ['incident.opened', 'incident.resolved']), kind, config: pages },
      only('escalations', ['incident.escalated']),
      only('halts', ['fleet.halted']),
      only('late', ['incident.late']),
    ]
    granted(await operator.call('outbox_targets_set', { request_id: randomUUID(), targets }))
    slack.misbehave = answer(404)
    await deliver()
    await open('P1', 'stock')
    await until(() => pager.alerts.length === 1)
    await until(async () => (await notifyStatus(operator)).verdict === 'ok')
    await announce('incident.escalated', 'stock')
    await announce('fleet.halted', 'stock')
    await announce('incident.late', 'stock')
    await until(async () => (await dead()) === 3)
    expect(await failing()).toEqual(['escalations', 'halts', 'late'])
    expect((await notifyStatus(operator)).verdict).toBe('failing')
  })

  test('the database knows what an event becomes at PagerDuty as the one who sends it does', async () => {
    const levels = [
      undefined,
      'P1',
      'P2',
      'critical',
      ' critical ',
      'high',
      'error',
      'medium',
      'warning',
      'low',
      'info',
      'x',
    ]
    const topics = ['incident.opened', 'incident.late', 'incident.escalated', 'incident.acked', 'incident.resolved']
    topics.push('incident.closed', 'incident.lifted', 'fleet.halted', 'fleet.resumed', 'deploy.done', 'rollback.x')
    topics.push('release.x', 'releases', 'security.blocked')
    const events = topics.flatMap((topic) =>
      [undefined, 'other', ...pagerdutyActions].flatMap((event_action) =>
        levels.flatMap((severity) =>
          levels.map((priority) => ({
            topic,
            // As JSON has it: what isn't there isn't there.
            payload: JSON.parse(JSON.stringify({ event_action, severity, priority })) as Record<string, string>,
          })),
        ),
      ),
    )
    const rows = await sql(
      `select tms._pager_does(x ->> 'topic', x -> 'payload') as does from jsonb_array_elements('${JSON.stringify(events)}') with ordinality u (x, n) order by n`,
    )
    const sends = events.map((event) => pagerdutyMessage(anEvent(event), 'tms', null)?.action ?? null)
    expect(rows.map(({ does }) => does)).toEqual(sends)
  })

  test('a target that is ten minutes behind fails, and what a halt holds back by right does not', async () => {
    await people()
    await open('P3', 'stock')
    expect((await notifyStatus(operator)).verdict).toBe('unknown')
    await sql(`update tms.outbox_deliveries set created_at = now() - interval '11 minutes'`)
    expect((await notifyStatus(operator)).targets).toMatchObject([
      { failing: 'it is behind' },
      { failing: 'it is behind' },
    ])
    await sql(`update tms.outbox_deliveries set lane = 'normal'`)
    granted(await operator.call('fence_halt', { why: 'a test', grace_ms: 0 }))
    const during = await notifyStatus(operator)
    for (const step of ['prepare', 'lift'] as const)
      granted(await operator.call('fence_resume', { request_id: randomUUID(), step, why: 'over' }))
    expect(during.verdict).toBe('unknown')
  })

  test('while halted what tells of the halt arrives, also behind something that waits for the resume', async () => {
    const { pager, slack } = await people()
    await sql(`select tms._announce('incident.escalated', '{"title": "before", "dedup_key": "one"}', null, 'normal')`)
    granted(await operator.call('fence_halt', { why: 'a test', grace_ms: 0 }))
    try {
      await sql(`select tms._announce('incident.escalated', '{"title": "the halt", "dedup_key": "one"}', null, 'halt')`)
      await deliver()
      await until(() => pager.alerts.length === 1 && slack.received.length === 1)
      expect(pager.alerts).toMatchObject([{ summary: 'the halt' }])
    } finally {
      for (const step of ['prepare', 'lift'] as const)
        granted(await operator.call('fence_resume', { request_id: randomUUID(), step, why: 'over' }))
    }
  })

  test('where nothing ever arrived it is unknown whether anything would', async () => {
    await people()
    const status = await notifyStatus(operator)
    expect(status.verdict).toBe('unknown')
    expect(unknownStatus(status)).toMatchObject({ code: 'NO_DATA', what: expect.stringContaining('pager, slack') })
    await deliver()
    await open('P1', 'stock')
    await until(async () => (await notifyStatus(operator)).verdict === 'ok')
    expect(unknownStatus(await notifyStatus(operator))).toBeNull()
  })

  test('where all arrived before and nobody delivers any more, nobody is told', async () => {
    await people()
    await deliver()
    await open('P1', 'stock')
    await until(async () => (await notifyStatus(operator)).verdict === 'ok')
    const before = await notifyStatus(operator)
    expect(before).toMatchObject({ verdict: 'ok', untold: null })
    await sql(`update tms.outbox_deliveries set delivered_at = delivered_at - interval '2 minutes'`)
    expect(await notifyStatus(operator)).toMatchObject({
      verdict: 'nobody',
      untold: 'no worker is there to deliver it',
    })
    const worker = await fleet.hello(['demo'])
    expect(await notifyStatus(operator)).toMatchObject({ verdict: 'ok', untold: null })
    granted(await fleet.worker.call('worker_bye', { worker }))
    await sql(`update tms.outbox_targets set paused = true`)
    expect(await notifyStatus(operator)).toMatchObject({ untold: 'every target that takes incidents is paused' })
  })

  test('nobody to tell is said, and is no success', async () => {
    granted(await operator.call('outbox_targets_set', { request_id: randomUUID(), targets: [] }))
    expect(await notifyStatus(operator)).toEqual({
      targets: [],
      verdict: 'nobody',
      untold: 'no target takes incidents',
    })
  })

  // There all who attach while an owner lives are that owner.
  test('a member of a tenant may do what is announced', async (context) => {
    if (name === 'embedded') return context.skip('all who attach while an owner lives are that owner')
    await people()
    const credential = await fleet.subject.credential('ops')
    const principal = `ops-${randomUUID()}@acme`
    granted(
      await operator.call('users_grant', {
        request_id: randomUUID(),
        principal,
        role: 'ops_manager',
        tenant: 'acme',
        credential,
      }),
    )
    // Lent for a moment to a function that members may call: what they do may be announced, in no tenant's name.
    const [before] = await sql(`select pg_get_functiondef('tms.outbox_lag(jsonb)'::regprocedure) as text`)
    const text = String(before?.['text'])
    await sql(
      text.replace(
        /if c\.answer is not null/,
        `perform tms._announce('incident.opened', '{"title": "x"}', 'k'); if c.answer is not null`,
      ),
    )
    const ops = await fleet.subject.as(credential.name)
    try {
      granted(await ops.call('outbox_lag', { tenant: 'acme' }))
      const { deliveries } = granted(await ops.call('outbox_list', { limit: 10 }))
      expect(deliveries).toEqual([])
    } finally {
      await ops.close()
      await sql(text)
    }
    expect(await sql('select target from tms.outbox_deliveries order by target')).toEqual([
      { target: 'pager' },
      { target: 'slack' },
    ])
  })

  test('a test of a target is sent for real, and says what came back', async () => {
    const { slack, pager } = await people()
    const pause = () => Promise.reject(new Error('nothing of this is tried again'))
    const signal = new AbortController().signal
    const options = { ...context, secrets, signal, pause, host: 'box', database: 'here' }
    const told = await testTarget(operator, { ...options, target: 'slack' })
    expect([told.arrived, testProblem(told), slack.received.length]).toEqual([true, null, 1])
    const paged = await testTarget(operator, { ...options, target: 'pager' })
    expect(paged.steps.map(({ what }) => what)).toEqual(['sent', 'ended'])
    // Nobody is left with an alert about nothing.
    expect(pager.alerts).toMatchObject([{ severity: 'info', state: 'resolved' }])
    pager.misbehave = answer(429, { 'retry-after': '9' })
    const refused = await testTarget(operator, { ...options, target: 'pager' })
    expect(testProblem(refused)).toMatchObject({ code: 'TOOL_FAILED', why: 'answered 429' })
    await expect(testTarget(operator, { ...options, target: 'nobody' })).rejects.toMatchObject({ code: 'NOT_FOUND' })
  })
})
