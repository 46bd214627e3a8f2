import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Contract } from '../../src/drivers/contract.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { turnIncidents } from '../../src/incident/incidents.ts'
import { TmsError } from '../../src/errors.ts'
import { planRollback } from '../../src/incident/levers.ts'
import { rehearsalTenant, rehearse } from '../../src/incident/rehearse.ts'
import { newSigner } from '../proof/signers.ts'
import { rolledBackView } from '../../src/incident/views.ts'
import { openScene, resumeNow, showOf, subjects, type Scene } from './fixture.ts'

describe.each(Object.entries(subjects))('the life of an incident through the %s driver', (name, start) => {
  let scene: Scene
  beforeAll(async () => {
    scene = await openScene(await start())
  })
  afterAll(() => scene.stop())

  const open = async (args: Partial<Contract['incident_open']['args']> = {}) =>
    granted(
      await scene.operator.call('incident_open', {
        request_id: randomUUID(),
        priority: 'P2',
        title: 'rates are wrong',
        ...args,
      }),
    )
  const work = (id: string, action: Contract['incident_work']['args']['action'], text?: string) =>
    scene.operator.call('incident_work', {
      request_id: randomUUID(),
      id,
      action,
      ...(text === undefined ? {} : { text }),
    })
  const cycle = () => turnIncidents(scene.operator)
  const kinds = async (id: string) => (await showOf(scene.operator, id)).events.map(({ kind }) => kind)
  /** As if it had been opened so long ago. */
  const aged = (id: string, minutes: number) =>
    scene.sql(
      `alter table tms.incidents disable trigger life;
       update tms.incidents set opened_at = opened_at - ${minutes} * interval '1 minute', response_due = response_due - ${minutes} * interval '1 minute' where id = ${id};
       alter table tms.incidents enable always trigger life`,
    )

  test('it is opened with a snapshot, acknowledged, noted, resolved and closed, and all of it stays in order', async () => {
    const { incident } = await open()
    expect(incident).toMatchObject({ priority: 'P2', status: 'OPEN', acted_at: null })
    const { snapshot } = await showOf(scene.operator, incident.id)
    expect(Object.keys(snapshot ?? {})).toEqual(
      expect.arrayContaining(['fence', 'flags', 'runs', 'numbers', 'queue', 'outbox', 'workers', 'locks', 'changes']),
    )
    expect(Object.values(snapshot ?? {}).filter((part) => JSON.stringify(part).includes('"missing"'))).toEqual([])
    granted(await work(incident.id, 'ack'))
    granted(await work(incident.id, 'note', 'the carrier changed its format'))
    granted(await work(incident.id, 'resolve', 'rates loaded again'))
    granted(await work(incident.id, 'close'))
    expect(await kinds(incident.id)).toEqual(['opened', 'acked', 'note', 'resolved', 'closed'])
  })

  test('what the life cycle does not have is refused', async () => {
    const { incident } = await open()
    expect(await work(incident.id, 'close')).toMatchObject({ refused: { code: 'CONFLICT' } })
    granted(await work(incident.id, 'resolve', 'it was nothing'))
    expect(await work(incident.id, 'ack')).toMatchObject({ refused: { code: 'CONFLICT' } })
    expect(await work(incident.id, 'resolve', 'again')).toMatchObject({ refused: { code: 'CONFLICT' } })
    expect(await work('999999', 'ack')).toMatchObject({ refused: { code: 'NOT_FOUND' } })
    await expect(scene.sql(`update tms.incidents set status = 'OPEN' where id = ${incident.id}`)).rejects.toThrow(
      'does not go from RESOLVED to OPEN',
    )
    await expect(scene.sql(`delete from tms.incident_events where incident_id = ${incident.id}`)).rejects.toThrow(
      'append-only',
    )
  })

  test('duplicate symptoms join, and twenty at once make one', async () => {
    const all = await Promise.all(Array.from({ length: 20 }, () => open({ key: 'rates' })))
    expect(new Set(all.map(({ incident }) => incident.id)).size).toBe(1)
    expect(all.filter(({ joined }) => !joined)).toHaveLength(1)
    expect((await showOf(scene.operator, all[0]?.incident.id ?? '')).incident.occurrences).toBe('20')
  })

  test('an incident nobody acts on is late once, and is escalated when it is 15 minutes old', async () => {
    const { incident } = await open({ priority: 'P1' })
    await cycle()
    expect(await kinds(incident.id)).toEqual(['opened'])
    await aged(incident.id, 1)
    expect((await cycle()).late).toEqual([incident.id])
    expect((await cycle()).late).toEqual([])
    await aged(incident.id, 15)
    expect((await cycle()).escalated).toEqual([incident.id])
    expect(await kinds(incident.id)).toEqual(['opened', 'late', 'escalated'])
    const [told] = await scene.sql(
      `select count(*)::int as n from tms.outbox_events where topic = 'incident.escalated' and payload ->> 'incident' = '${incident.id}'`,
    )
    expect(told).toEqual({ n: 1 })
    granted(await work(incident.id, 'resolve', 'done'))
  })

  test('one that was late and is raised has the time of the graver one, and is late again after it', async () => {
    const { incident } = await open({ priority: 'P3', key: 'raised' })
    await aged(incident.id, 6)
    expect((await cycle()).late).toEqual([incident.id])
    await open({ priority: 'P1', key: 'raised' })
    expect((await cycle()).late).toEqual([])
    await aged(incident.id, 1)
    expect((await cycle()).late).toEqual([incident.id])
    expect((await cycle()).late).toEqual([])
    const told = await scene.sql(
      `select payload ->> 'priority' as priority from tms.outbox_events where topic = 'incident.late' and payload ->> 'incident' = '${incident.id}' order by id`,
    )
    expect(told).toEqual([{ priority: 'P3' }, { priority: 'P1' }])
    granted(await work(incident.id, 'resolve', 'done'))
  })

  test('an acknowledged one is not escalated for its age', async () => {
    const { incident } = await open()
    granted(await work(incident.id, 'ack'))
    await aged(incident.id, 60)
    expect(await cycle()).toMatchObject({ late: [], escalated: [] })
    granted(await work(incident.id, 'resolve', 'done'))
  })

  test('three attempts that did not help escalate it', async () => {
    const { incident } = await open({ key: 'heals' })
    const [{ key } = {}] = await scene.sql(`select dedupe_key as key from tms.incidents where id = ${incident.id}`)
    for (let n = 0; n < 3; n++)
      await scene.sql(
        `insert into tms.incident_events (incident_id, at, who, kind, text) values (${incident.id}, now(), 'tms', 'attempt', 'tried')`,
      )
    await scene.sql(
      `update tms.incidents set attempts = 3, status = 'AUTO_HEALING', acted_at = now() where dedupe_key = '${String(key)}' and status = 'OPEN'`,
    )
    expect((await cycle()).escalated).toEqual([incident.id])
    granted(await work(incident.id, 'resolve', 'done'))
  })

  // One process owns the embedded database and is one person there; the permission walk opens it as each in turn.
  test('a tenant sees its own and the fleet’s, and nobody else’s', async (context) => {
    if (name === 'embedded') return context.skip('one process is one person there')
    const theirs = await open({ tenant: 'globex', title: 'about globex' })
    const fleets = await open({ title: 'about everybody' })
    const credential = await scene.fleet.subject.credential('viewer')
    granted(
      await scene.operator.call('users_grant', {
        request_id: randomUUID(),
        principal: 'viewer@acme',
        role: 'viewer',
        tenant: 'acme',
        credential,
      }),
    )
    const viewer = await scene.fleet.subject.as(credential.name)
    try {
      const { incidents } = granted(await viewer.call('incident_list', { limit: 100 }))
      const ids = incidents.map(({ id }) => id)
      expect(ids).toContain(fleets.incident.id)
      expect(ids).not.toContain(theirs.incident.id)
      expect(await viewer.call('incident_show', { id: theirs.incident.id })).toMatchObject({
        refused: { code: 'NOT_FOUND' },
      })
      const shown = granted(await viewer.call('incident_show', { id: fleets.incident.id }))
      expect(shown.snapshot).toBeNull()
    } finally {
      await viewer.close()
    }
  })

  test('soft degrade lowers the limits, and resume restores exactly that', async () => {
    const { fleet, operator } = scene
    await fleet.set('budget.agents.maxConcurrent', 120)
    await fleet.set('ops.replayEnabled', true, 'acme')
    granted(
      await operator.call('flags_rollout', {
        request_id: randomUUID(),
        key: 'finance.autoInvoice',
        step: 'start',
        value: true,
        canary: ['acme'],
        cohort: { name: 'first', percentage: '10' },
        consent: 'finance.autoInvoice@canary',
        why: 'tried out',
      }),
    )
    const rows = () =>
      scene.sql(
        `select key, level, company_id, value, rollout, canary, cohort_name, cohort_rollout, wait_seconds, stage_since from tms.feature_flags_v2 order by key, level, company_id`,
      )
    const before = await rows()
    const pulled = granted(
      await operator.call('incident_soft_degrade', { request_id: randomUUID(), why: 'too many errors' }),
    )
    expect(pulled).toMatchObject({ joined: false, slots_before: 120, slots_after: 15 })
    expect(pulled.changes.map(({ key, scope }) => `${key} ${scope}`).sort()).toEqual([
      'budget.agents.maxConcurrent global',
      'finance.autoInvoice global',
      'ops.replayEnabled global',
    ])
    // a tenant's own setting stays, and doesn't count: neither the one it had nor one that it makes now
    const barred = async () => granted(await operator.call('dlq_plan', { tenant: 'acme' })).barred
    const why = `the soft degrade of incident ${pulled.incident} pauses replays for every tenant`
    expect(await barred()).toBe(why)
    await fleet.set('ops.replayEnabled', false, 'acme')
    await fleet.set('ops.replayEnabled', true, 'acme')
    expect(await barred()).toBe(why)
    const again = granted(await operator.call('incident_soft_degrade', { request_id: randomUUID() }))
    expect(again).toMatchObject({ joined: true, incident: pulled.incident, lever: null, changes: [] })
    expect(await work(pulled.incident, 'resolve', 'done')).toMatchObject({ refused: { code: 'CONFLICT' } })
    await resumeNow(operator, pulled.incident)
    expect(await rows()).toEqual(before)
    expect(await barred()).toBeNull()
  })

  test('a flag that somebody changed under soft degrade is left, and said', async () => {
    const { fleet, operator } = scene
    const pulled = granted(await operator.call('incident_soft_degrade', { request_id: randomUUID() }))
    await fleet.set('budget.agents.maxConcurrent', 40)
    const { kept } = granted(
      await operator.call('incident_resume', { request_id: randomUUID(), id: pulled.incident, step: 'prepare' }),
    )
    expect(kept).toMatchObject([{ key: 'budget.agents.maxConcurrent', value: 40 }])
    for (const percent of [50, 100])
      granted(
        await operator.call('incident_resume', {
          request_id: randomUUID(),
          id: pulled.incident,
          step: 'slots',
          percent,
        }),
      )
    expect((await showOf(operator, pulled.incident)).incident).toMatchObject({
      status: 'RESOLVED',
      resolution: 'resumed',
    })
    await fleet.set('budget.agents.maxConcurrent', 120)
  })

  test('rollback goes back to the newest green state', async () => {
    const { fleet, operator } = scene
    await fleet.set('obs.otelEnabled', true)
    await fleet.set('finance.approvalLimit', '100')
    const rows = () =>
      scene.sql(
        `select key, level, company_id, value, rollout from tms.feature_flags_v2 order by key, level, company_id`,
      )
    const green = await rows()
    await fleet.set('autonomy.mode', 'ASSIST')
    await fleet.set('finance.approvalLimit', '5000')
    const plan = granted(await operator.call('incident_rollback_plan', {}))
    expect(plan.changes.map(({ key }) => key)).toEqual(['autonomy.mode', 'finance.approvalLimit'])
    expect(await operator.call('incident_rollback', { request_id: randomUUID(), plan: 'another' })).toMatchObject({
      refused: { code: 'PLAN_CHANGED' },
    })
    granted(await operator.call('incident_rollback', { request_id: randomUUID(), plan: plan.plan ?? '' }))
    expect(await rows()).toEqual(green)
    expect(granted(await operator.call('incident_rollback_plan', {})).changes).toEqual([])
  })

  test('what a symptom says that joins is kept, each text once and not without end', async () => {
    const said = (id: string) =>
      showOf(scene.operator, id).then(({ events }) => events.filter(({ kind }) => kind === 'joined'))
    const { incident } = await open({ key: 'words', title: 'rates are wrong' })
    for (const title of ['rates are wrong', 'rates are missing', 'rates are missing', 'x'.repeat(1500)])
      await open({ key: 'words', title })
    await open({ key: 'words', title: 'all of it is wrong', priority: 'P1' })
    await open({ key: 'words', title: 'all of it is wrong' })
    expect((await said(incident.id)).map(({ text }) => text)).toEqual(['rates are missing', 'x'.repeat(1500)])
    const flood = Array.from({ length: 60 }, (_, n) => open({ key: 'words', title: `rates took ${n} s` }))
    await Promise.all(flood)
    const kept = await said(incident.id)
    expect(kept).toHaveLength(51)
    expect(kept.at(-1)?.text).toContain('counted only')
    const { incident: after } = await showOf(scene.operator, incident.id)
    expect(after.occurrences).toBe('67')
    granted(await work(incident.id, 'resolve', 'done'))
  })

  test('a description that is longer than a title is kept whole', async () => {
    const title = `${'x'.repeat(900)} the end`
    const { incident } = await open({ title })
    expect(incident.title).toHaveLength(300)
    expect((await showOf(scene.operator, incident.id)).events[0]?.text).toBe(title)
    granted(await work(incident.id, 'resolve', 'done'))
  })

  test('rollback goes to the last time that the posture was green: not to unknown, not to what only claims to be', async () => {
    const { fleet, operator } = scene
    const judged = async (verdict: 'green' | 'red' | 'unknown') => {
      const [{ at } = { at: '' }] = await scene.sql(
        `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at`,
      )
      const checks = [{ name: 'a_check', state: verdict, observed: null, comparison: 'at most', limit: '0' }]
      const score = { low: '0', high: '100', grade: 'F' as const }
      const as_of = String(at)
      granted(await operator.call('posture_record', { request_id: randomUUID(), as_of, verdict, score, checks }))
      return as_of
    }
    const limit = (value: string) => fleet.set('finance.approvalLimit', value)
    await fleet.set('obs.otelEnabled', true)
    const plan = async () => granted(await operator.call('incident_rollback_plan', {}))
    expect(await plan()).toMatchObject({ basis: 'flags', source: expect.stringContaining('no posture is on record') })
    await limit('1')
    await judged('unknown')
    expect(await plan()).toMatchObject({ basis: 'flags', source: expect.stringContaining('no posture on record was') })
    await limit('2')
    await judged('green')
    await limit('3')
    // Another look while nothing changed: that one is the last.
    const green = await judged('green')
    await limit('4')
    await judged('red')
    expect(await plan()).toMatchObject({
      moment: green,
      basis: 'posture',
      changes: [{ key: 'finance.approvalLimit', before: '4', after: '3' }],
    })
    // Whoever records a posture says so; the required flags of that moment say something else.
    await fleet.set('autonomy.mode', 'ASSIST')
    await judged('green')
    expect((await plan()).moment).toBe(green)
    const { plan: name } = await plan()
    const done = granted(await operator.call('incident_rollback', { request_id: randomUUID(), plan: name ?? '' }))
    expect(done).toMatchObject({ basis: 'posture', moment: green })
    expect((await plan()).changes).toEqual([])
    granted(await work(done.incident ?? '', 'resolve', 'done'))
  })

  test('an alarm that asks for a rollback is an incident of its level, whatever becomes of it', async () => {
    const { operator } = scene
    const wanted = async (priority: 'P1' | 'P4', why: string) =>
      granted(await operator.call('incident_rollback_wanted', { request_id: randomUUID(), priority, why }))
    const first = await wanted('P4', 'too many errors')
    expect(first).toMatchObject({ joined: false, incident: { type: 'rollback', priority: 'P4', status: 'OPEN' } })
    expect(await wanted('P1', 'far too many')).toMatchObject({ joined: true, incident: { priority: 'P1' } })
    await wanted('P4', 'still')
    expect((await showOf(operator, first.incident.id)).events.map(({ text }) => text)).toEqual([
      'Rollback: too many errors',
      'from P4 to P1: Rollback: far too many',
      'Rollback: still',
    ])
    granted(await work(first.incident.id, 'resolve', 'done'))
  })

  test('rollback leaves what a soft degrade holds, and says how it is undone itself', async () => {
    const { fleet, operator } = scene
    const limit = async () =>
      (await scene.sql(`select value from tms.feature_flags_v2 where key = 'budget.agents.maxConcurrent'`))[0]?.[
        'value'
      ]
    await fleet.set('budget.agents.maxConcurrent', 110)
    await fleet.set('finance.approvalLimit', '100')
    const [{ at } = { at: '' }] = await scene.sql(
      `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at`,
    )
    const to = String(at)
    const pulled = granted(await operator.call('incident_soft_degrade', { request_id: randomUUID() }))
    await fleet.set('finance.approvalLimit', '5000')
    const plan = granted(await operator.call('incident_rollback_plan', { to }))
    expect(plan.changes.map(({ key }) => key)).toEqual(['finance.approvalLimit'])
    expect(plan.held).toContainEqual({ key: 'budget.agents.maxConcurrent', scope: 'global', incident: pulled.incident })
    const done = granted(
      await operator.call('incident_rollback', { request_id: randomUUID(), to, plan: plan.plan ?? '' }),
    )
    expect(await limit()).toBe(15)
    const back = granted(await operator.call('incident_rollback_plan', { to: done.at ?? '' }))
    expect(back.changes).toMatchObject([{ key: 'finance.approvalLimit', before: '100', after: '5000' }])
    expect(rolledBackView({ target: 'here', ...done }).at(-1)).toMatchObject({
      commands: expect.arrayContaining([`tms incident rollback --to ${done.at}`]),
    })
    await resumeNow(operator, pulled.incident)
    expect(await limit()).toBe(110)
  })

  test('safe mode says how many workers it saw, and a second time since when and by whom', async () => {
    const { operator } = scene
    const first = granted(await operator.call('safe_mode_on', { why: 'a test' }))
    expect(first).toMatchObject({ already: false, workers: expect.any(Number) })
    expect(granted(await operator.call('safe_mode_on', { why: 'again' }))).toMatchObject({
      already: true,
      since: first.since,
      by: first.by,
    })
    granted(
      await operator.call('safe_mode_off', {
        request_id: randomUUID(),
        override_token_sha256: 'ab'.repeat(32),
        why: 'over',
      }),
    )
  })

  test('MTTA and MTTR are means of what was opened in the span, and unknown without samples', async () => {
    const none = granted(
      await scene.operator.call('incident_times', { to: '2020-01-01T00:00:00Z', from: '2019-01-01T00:00:00Z' }),
    )
    expect(none).toMatchObject({ opened: '0', mtta_seconds: null, mttr_seconds: null })
    const some = granted(await scene.operator.call('incident_times', {}))
    expect(Number(some.mttr_seconds)).toBeGreaterThan(0)
  })

  test('the rehearsal walks the whole chain, tells its targets, and pages nobody', async () => {
    const targets = (list: { name: string; kind: 'webhook'; topics: string[]; config: Record<string, never> }[]) =>
      scene.operator.call('outbox_targets_set', { request_id: randomUUID(), targets: list })
    granted(await targets([{ name: 'pager', kind: 'webhook', topics: ['incident.*'], config: {} }]))
    const walked = await rehearse(scene.operator, () => Promise.resolve(newSigner()))
    granted(await targets([]))
    expect(walked.steps.filter(({ ok }) => !ok)).toEqual([])
    expect(walked.steps.find((step) => step.name === 'notification')?.why).toBe('on its way to pager')
    const actions = await scene.sql(
      `select distinct topic, payload ->> 'event_action' as action from tms.outbox_events where payload ->> 'type' = 'rehearsal'`,
    )
    expect(actions.map(({ topic }) => topic)).toEqual(expect.arrayContaining(['incident.escalated', 'incident.late']))
    expect(new Set(actions.map(({ action }) => action))).toEqual(new Set(['change']))
    const { incident } = await open({ type: 'rehearsal' })
    expect(
      await scene.operator.call('incident_rehearse', { request_id: randomUUID(), id: incident.id, step: 'heal' }),
    ).toMatchObject({ refused: { code: 'CONFLICT' } })
    granted(await work(incident.id, 'resolve', 'done'))
  })

  test('what a rehearsal left when it was cut short pages nobody, counts for nothing, and is ended by the next', async () => {
    granted(
      await scene.operator.call('outbox_targets_set', {
        request_id: randomUUID(),
        targets: [{ name: 'pager', kind: 'webhook', topics: ['incident.*'], config: {} }],
      }),
    )
    const before = granted(await scene.operator.call('posture_facts', {})).incidents
    const left = (await open({ tenant: rehearsalTenant, type: 'rehearsal', priority: 'P4' })).incident.id
    const degraded = granted(
      await scene.operator.call('incident_soft_degrade', { request_id: randomUUID(), tenant: rehearsalTenant }),
    ).incident
    for (const id of [left, degraded]) await aged(id, 20)
    expect(granted(await scene.operator.call('posture_facts', {})).incidents).toEqual(before)
    expect((await cycle()).escalated).toEqual(expect.arrayContaining([left, degraded]))
    const actions = await scene.sql(
      `select distinct payload ->> 'event_action' as action from tms.outbox_events where payload ->> 'incident' in ('${left}', '${degraded}')`,
    )
    expect(actions).toEqual([{ action: 'change' }])
    const walked = await rehearse(scene.operator, () => Promise.resolve(newSigner()))
    granted(await scene.operator.call('outbox_targets_set', { request_id: randomUUID(), targets: [] }))
    expect(walked.steps.filter(({ ok }) => !ok)).toEqual([])
    expect(walked.steps).toContainEqual({
      name: 'what an earlier one left is ended',
      ok: true,
      why: `incident ${left}`,
    })
    expect((await showOf(scene.operator, left)).incident.status).toBe('CLOSED')
    expect((await showOf(scene.operator, degraded)).incident.status).toBe('RESOLVED')
  })

  test('the list is cut where it matters least: the gravest stay, and it says how many did not fit', async () => {
    const grave = (await open({ priority: 'P1', title: 'everything stands still' })).incident.id
    const small: string[] = []
    for (let n = 0; n < 3; n++) small.push((await open({ priority: 'P4', title: `small ${n}` })).incident.id)
    const list = async (limit: number) => granted(await scene.operator.call('incident_list', { limit }))
    const all = await list(1000)
    expect(all.more).toBe(0)
    const cut = await list(all.incidents.length - 2)
    expect(cut.more).toBe(2)
    expect(cut.incidents.map(({ id }) => id)).toContain(grave)
    for (const id of [grave, ...small]) granted(await work(id, 'resolve', 'done'))
  })

  test('a rehearsal by somebody who may not, or without the database, says nothing about the chain', async () => {
    const system = await scene.account('system')
    const refused = await rehearse(system, () => Promise.resolve(newSigner()))
    expect(refused).toMatchObject({ problem: { code: 'ROLE_DENIED' }, steps: [{ ok: false }] })
    const lost: Driver = {
      ...scene.operator,
      target: scene.operator.target,
      call: (fn, args, options) =>
        fn === 'incident_show'
          ? Promise.reject(new TmsError({ code: 'DB_UNREACHABLE', what: 'gone', why: 'gone', next: [] }))
          : scene.operator.call(fn, args, options),
    }
    expect(await rehearse(lost, () => Promise.resolve(newSigner()))).toMatchObject({
      problem: { code: 'DB_UNREACHABLE' },
    })
    const { incidents } = granted(await scene.operator.call('incident_list', { tenant: rehearsalTenant, limit: 10 }))
    for (const { id } of incidents)
      await scene.operator.call('incident_work', {
        request_id: randomUUID(),
        tenant: rehearsalTenant,
        id,
        action: 'resolve',
        text: 'done',
      })
  })

  test('a refusal names the command that helps', async () => {
    const next = async (call: Promise<unknown>) =>
      call.then(
        // True because every refusal has them.
        (answer) => (answer as { refused: { next: string[] } }).refused.next,
        (error: unknown) => (error instanceof TmsError ? error.next : []),
      )
    const { operator } = scene
    const request_id = () => randomUUID()
    expect(await next(open({ title: ' ' }))).toEqual([expect.stringContaining('tms incident open "')])
    expect(await next(open({ type: 'emergency_stop' }))).toEqual(['tms incident big-red-button'])
    const { incident } = await open()
    expect(await next(work(incident.id, 'note', ' '))).toEqual([`tms incident note ${incident.id} <words>`])
    granted(await work(incident.id, 'resolve', 'done'))
    const pulled = granted(await operator.call('incident_soft_degrade', { request_id: request_id() }))
    expect(await next(work(pulled.incident, 'close'))).toEqual([`tms incident resume ${pulled.incident}`])
    await resumeNow(operator, pulled.incident)
    const halt = granted(await operator.call('fence_halt', { why: 'a test', grace_ms: 0 }))
    const { incident: id } = granted(
      await operator.call('incident_press', { request_id: request_id(), halt: halt.halt ?? '' }),
    )
    expect(await next(work(id, 'close'))).toEqual([`tms incident resume ${id}`])
    await resumeNow(operator, id)
  })

  test("a service account rolls back unattended, but not the whole fleet for one tenant's alarm", async () => {
    const autopilot = await scene.account('autopilot')
    expect(await planRollback(autopilot, undefined)).toMatchObject({ unattended: true })
    expect(await planRollback(autopilot, undefined, 'acme')).toMatchObject({ unattended: false })
  })

  test('a rollback into the future is a mistake and no success', async () => {
    await expect(planRollback(scene.operator, '2999-01-01T00:00:00Z')).rejects.toMatchObject({
      code: 'INPUT_INVALID',
      exit: 2,
      next: ['tms flags history'],
    })
  })
})
