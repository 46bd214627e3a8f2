import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { actionToUndo, actOnPosture, undoAction } from '../../src/posture/act.ts'
import type { Consequence } from '../../src/posture/judge.ts'
import { posture, postureUnknown, recordPosture, type Posture } from '../../src/posture/posture.ts'
import type { Slo } from '../../src/posture/slo.ts'
import { readSqlFiles } from '../../src/db/files.ts'
import { sqlBeside, subjects } from '../contract/subjects.ts'
import { sqlFolder } from '../servers/schema.ts'
import { policy, readyFleet, type Fleet } from '../fleet/fleet.ts'
import { shipped } from './facts.ts'

type State = 'green' | 'red' | 'unknown'

/** There whoever comes through the owner's socket is the owner's user, unless it is a service account. */
const onePerson = 'on the embedded database all people are one'

describe.each(Object.entries(subjects))('posture through %s', (name, make) => {
  const people = name !== 'embedded'
  let fleet: Fleet
  let autopilot: Driver
  let ops: Driver

  beforeAll(async () => {
    fleet = await readyFleet(await make(), [policy('demo'), policy('rates')])
    await fleet.set('obs.otelEnabled', true)
    const credential = await fleet.subject.credential('ops')
    granted(
      await fleet.operator.call('users_grant', {
        request_id: randomUUID(),
        principal: 'ops@acme',
        role: 'ops_manager',
        tenant: 'acme',
        credential,
      }),
    )
    autopilot = await fleet.subject.as(await fleet.subject.account('autopilot'))
    ops = await fleet.subject.as(credential.name)
  })
  afterAll(async () => {
    await autopilot.close()
    await ops.close()
    await fleet.stop()
  })
  const sql = (text: string, parameters?: unknown[]) => sqlBeside(fleet.subject, fleet.operator)(text, parameters)
  beforeEach(async () => {
    await sql(`delete from tms.probes; delete from tms.posture_checks; delete from tms.posture_states; delete from tms.posture_actions; delete from tms.workers;
      delete from tms.outbox_events where topic like 'posture.%'; delete from tms.outbox_keys where topic like 'posture.%'; select 1`)
  })

  const look = (driver = autopilot, change: { tenant?: string; windowSeconds?: number; slo?: Slo } = {}) =>
    posture(driver, { slo: shipped, sqlFiles: null, ...change })
  const stateOf = (seen: Posture, wanted: string) => seen.checks.find((check) => check.name === wanted)?.state
  const facts = async (
    args: { tenant?: string; seconds?: number; from?: string; to?: string } = {},
    driver = autopilot,
  ) => granted(await driver.call('posture_facts', args))

  // ---- facts

  describe('what is measured', () => {
    type Run = { company: string; agent: string; outcome: string; ms: number; minutes: number }
    const outcomes = [
      'completed',
      'completed',
      'completed',
      'completed',
      'failed',
      'retried',
      'lost',
      'awaiting_approval',
    ]

    /** A generator with a fixed seed: the same runs each time, and no two alike. */
    const some = (n: number, seed: number): Run[] => {
      let x = seed
      const next = (below: number) => (x = (x * 48_271) % 2_147_483_647) % below
      return Array.from({ length: n }, () => ({
        company: next(3) === 0 ? 'globex' : 'acme',
        agent: next(2) === 0 ? 'demo' : 'rates',
        outcome: outcomes[next(outcomes.length)] ?? 'completed',
        ms: Math.floor(2 ** (next(1300) / 100)),
        minutes: next(26 * 60),
      }))
    }
    const insert = (runs: readonly Run[]) =>
      sql(
        `insert into tms.agent_runs (task_id, claim, attempt, company_id, agent, fn_name, outcome, started_at, finished_at, ms, cost, trace_id, epoch)
           select 900000000 + (random() * 1e8)::bigint, 1, 1, c.id, r.agent, r.agent || '.one', r.outcome, now(), clock_timestamp() - r.minutes * interval '1 minute', r.ms, 0.001,
                  case when r.ms % 2 = 0 then 'abc' end, 0
             from jsonb_to_recordset($1::jsonb) r (company text, agent text, outcome text, ms integer, minutes integer) join tms.companies c on c.key = r.company`,
        [JSON.stringify(runs)],
      )

    /** The same from the runs themselves, by other means. */
    const byHand = async (from: string, to: string, tenant: string | null) => {
      const rows = await sql(
        `select r.outcome, r.ms, r.trace_id is not null as traced from tms.agent_runs r join tms.companies c on c.id = r.company_id
          where r.finished_at >= $1::timestamptz and r.finished_at < $2::timestamptz and ($3::text is null or c.key = $3)`,
        [from, to, tenant],
      )
      const times = rows.map((row) => Number(row['ms'])).toSorted((a, b) => a - b)
      const of = (...wanted: string[]) => rows.filter((row) => wanted.includes(String(row['outcome']))).length
      const at = (share: number) => times[Math.ceil(times.length * share) - 1] ?? NaN
      return {
        completed: of('completed', 'awaiting_approval'),
        failed: of('failed'),
        retried: of('retried'),
        lost: of('lost'),
        traced: rows.filter((row) => row['traced'] === true).length,
        p50: at(0.5),
        p95: at(0.95),
      }
    }

    beforeAll(async () => {
      await insert(some(1500, 7))
      granted(await fleet.worker.call('upkeep', {}))
      // and these wait to be folded in
      await insert(some(700, 11))
    })

    test.each([
      [86_400, null],
      [86_400, 'acme'],
      [3600, null],
      [6 * 3600, 'globex'],
      [1500, null],
      [600, 'acme'],
    ])(
      'success and p95 of the last %d s of %s agree with the raw runs within the stated error',
      async (seconds, tenant) => {
        const { tasks } = await facts({ seconds, ...(tenant === null ? {} : { tenant }) })
        const own = await byHand(tasks.from, tasks.to, tenant)
        expect(Date.parse(tasks.to) - Date.parse(tasks.from)).toBeGreaterThanOrEqual(seconds * 1000 - 1)
        expect([tasks.completed, tasks.failed, tasks.retried, tasks.lost, tasks.traced].map(Number)).toEqual([
          own.completed,
          own.failed,
          own.retried,
          own.lost,
          own.traced,
        ])
        expect(Number(tasks.success_percent)).toBeCloseTo((own.completed / (own.completed + own.failed)) * 100, 3)
        // bounds are told to a tenth of a millisecond
        expect(own.p95).toBeLessThanOrEqual(Number(tasks.p95_ms) + 0.05)
        expect(own.p95).toBeGreaterThan(Number(tasks.p95_above_ms) - 0.05)
        expect(Number(tasks.p95_ms)).toBeLessThanOrEqual(own.p95 * (1 + Number(tasks.error_percent) / 100) + 1)
        expect(own.p50).toBeLessThanOrEqual(Number(tasks.p50_ms) + 0.05)
      },
    )

    test('a window that is past, and not of whole quarter hours, is widened to them and says so', async () => {
      const [row] = await sql(
        `select tms._utc(date_trunc('hour', clock_timestamp()) - interval '20 hours' + interval '7 minutes') as a, tms._utc(date_trunc('hour', clock_timestamp()) - interval '20 hours' + interval '12 minutes') as b`,
      )
      const { tasks } = await facts({ from: String(row?.['a']), to: String(row?.['b']) })
      expect([tasks.from.slice(14, 19), tasks.to.slice(14, 19)]).toEqual(['00:00', '15:00'])
      const own = await byHand(tasks.from, tasks.to, null)
      expect([Number(tasks.completed), Number(tasks.failed)]).toEqual([own.completed, own.failed])
    })

    test('folding runs in changes nothing, and counts none twice', async () => {
      const of = async () => {
        const { tasks } = await facts({
          from: '2026-01-01T00:00:00.000000Z'.replace(
            '2026-01-01',
            new Date(Date.now() - 2 * 86_400_000).toISOString().slice(0, 10),
          ),
        })
        return { ...tasks, to: '' }
      }
      const before = await of()
      granted(await fleet.worker.call('upkeep', {}))
      expect(await of()).toEqual(before)
    })

    test('the agents add up to the whole', async () => {
      const { tasks } = await facts()
      expect(tasks.agents.map(({ agent }) => agent)).toEqual(['demo', 'rates'])
      expect(tasks.agents.reduce((sum, { failed }) => sum + Number(failed), 0)).toBe(Number(tasks.failed))
    })

    test("a tenant's people see their tenant's numbers, and nothing that is the fleet's", async ({ skip }) => {
      skip(!people, onePerson)
      const [whole, acme, own] = [await facts(), await facts({ tenant: 'acme' }), await facts({}, ops)]
      expect(Number(acme.tasks.samples)).toBeLessThan(Number(whole.tasks.samples))
      expect(own.tasks.samples).toBe(acme.tasks.samples)
      expect([own.fleet, own.scope, own.concurrency, own.drift, own.unsealed_seconds]).toEqual([
        false,
        'your tenants',
        null,
        null,
        null,
      ])
      expect(JSON.stringify(own)).not.toContain('globex')
      expect(await ops.call('posture_facts', { tenant: 'globex' })).toHaveProperty('refused.code', 'ROLE_DENIED')
      expect((await look(ops)).health).toBeNull()
    })

    test('what is read is of the window asked for', async () => {
      const past = await facts({ from: '2020-01-01T00:00:00.000000Z', to: '2020-01-02T00:00:00.000000Z' })
      expect([past.tasks.samples, past.uptime.minutes, past.uptime.unknown, past.outbox.samples]).toEqual([
        '0',
        1440,
        1440,
        '0',
      ])
      await expect(facts({ seconds: 32 * 86_400 })).rejects.toMatchObject({ code: 'INPUT_INVALID' })
      await expect(facts({ seconds: -1 })).rejects.toMatchObject({ code: 'INPUT_INVALID' })
    })
  })

  test('a task whose worker died on its last attempt counts as failed', async () => {
    const before = (await facts()).tasks
    await fleet.load(policy('demo', { max_attempts: 1 }), policy('rates'))
    await fleet.enqueue('acme', [{ function: 'demo.one' }])
    const worker = await fleet.hello(['demo'])
    granted(await fleet.worker.call('tasks_claim', { worker, limit: 1 }))
    await sql(`update tms.workers set lease_until = clock_timestamp() - interval '1 second' where id = ${worker}`)
    granted(await fleet.worker.call('tasks_reap', {}))
    await fleet.load(policy('demo'), policy('rates'))
    const { tasks } = await facts()
    expect([
      Number(tasks.failed) - Number(before.failed),
      Number(tasks.quarantined) - Number(before.quarantined),
    ]).toEqual([1, 1])
  })

  // ---- probes

  const probe = (
    driver: Driver,
    ...probes: { kind: 'database' | 'door'; up: boolean; ago_ms?: number; why?: string }[]
  ) => driver.call('probe_record', { request_id: randomUUID(), probes })
  /** Every minute of the last so many, as if somebody had probed. */
  const probed = (minutes: number, down = 0) =>
    sql(`insert into tms.probes (minute, kind, up, down) select date_trunc('minute', clock_timestamp()) - m * interval '1 minute', 'database', 1, case when m < ${down} then 1 else 0 end
           from generate_series(0, ${minutes}) m on conflict do nothing`)

  describe('probes', () => {
    test('a minute is up when somebody asked and all answered; the rest is unknown', async () => {
      granted(await probe(autopilot, { kind: 'database', up: true }, { kind: 'door', up: true }))
      const { uptime } = await facts({ seconds: 600 })
      expect([uptime.up, uptime.down]).toEqual([1, 0])
      expect(uptime.unknown).toBeGreaterThanOrEqual(8)
      granted(await probe(autopilot, { kind: 'door', up: false, why: 'HTTP_503' }))
      const later = (await facts({ seconds: 600 })).uptime
      expect(later.down).toBe(1)
      expect(later.kinds.find(({ kind }) => kind === 'door')?.why).toBe('HTTP_503')
    })

    test('what was down may be told later, what was up may not', async () => {
      granted(await probe(autopilot, { kind: 'database', up: false, why: 'DB_UNREACHABLE', ago_ms: 5 * 60_000 }))
      expect((await facts({ seconds: 900 })).uptime.down).toBe(1)
      await expect(probe(autopilot, { kind: 'database', up: true, ago_ms: 60_000 })).rejects.toMatchObject({
        code: 'INPUT_INVALID',
      })
      await expect(probe(autopilot, { kind: 'database', up: false, ago_ms: 90_000_000 })).rejects.toMatchObject({
        code: 'INPUT_INVALID',
      })
      await expect(probe(autopilot, { kind: 'database', up: false, ago_ms: -1 })).rejects.toMatchObject({
        code: 'INPUT_INVALID',
      })
    })

    test('an error is kept as its code, and no text', async () => {
      granted(await probe(autopilot, { kind: 'door', up: false, why: 'connect ann@acme.example refused' }))
      expect(await sql(`select why from tms.probes where kind = 'door'`)).toEqual([{ why: 'OTHER' }])
    })

    test('the fleet is up when a worker lives, and its minute is down when none does', async () => {
      const worker = await fleet.hello(['demo'])
      expect(granted(await probe(autopilot)).fleet).toBe(true)
      granted(await fleet.worker.call('worker_bye', { worker }))
      expect(granted(await probe(autopilot)).fleet).toBe(false)
      expect((await facts({ seconds: 600 })).uptime.kinds).toMatchObject([{ kind: 'fleet', down: 1, why: 'NO_WORKER' }])
    })

    test('are recorded by whom roles.yaml names, and by nobody else', async () => {
      if (people) expect(await probe(ops, { kind: 'database', up: true })).toHaveProperty('refused.code', 'ROLE_DENIED')
      expect(await probe(fleet.worker, { kind: 'database', up: true })).toHaveProperty('refused.code', 'ROLE_DENIED')
      expect(await sql('select * from tms.probes')).toEqual([])
    })
  })

  // ---- three honest results

  describe('with nothing to judge', () => {
    const installed = (ago: string) =>
      sql(`update tms.environment set initialised_at = clock_timestamp() - interval '${ago}' where one`)
    /** Nothing has ended in the window: the runs of the other tests lie before it. */
    const quietly = async (work: () => Promise<void>) => {
      await sql(`alter table tms.agent_runs rename to was_runs; alter table tms.agent_metrics rename to was_metrics;
        create table tms.agent_runs (like tms.was_runs including all); create table tms.agent_metrics (like tms.was_metrics including all);
        alter table tms.agent_runs owner to tms_owner; alter table tms.agent_metrics owner to tms_owner; select 1`)
      try {
        await work()
      } finally {
        await sql(
          `drop table tms.agent_runs; drop table tms.agent_metrics; alter table tms.was_runs rename to agent_runs; alter table tms.was_metrics rename to agent_metrics; select 1`,
        )
      }
    }

    test('an idle Sunday, an hour-old install and a day nobody watched are three different answers', async () => {
      await quietly(async () => {
        await installed('7 days')
        await probed(1500)
        const sunday = await look()
        await installed('1 hour')
        await sql(`delete from tms.probes where minute < clock_timestamp() - interval '1 hour'`)
        const young = await look()
        await installed('7 days')
        const dark = await look()
        expect(sunday.checks.filter(({ state }) => state === 'red')).toEqual([])
        expect([sunday, young, dark].map(({ verdict, ground }) => [verdict, ground.state])).toEqual([
          ['unknown', 'idle'],
          ['unknown', 'young'],
          ['unknown', 'unwatched'],
        ])
        expect([sunday, young, dark].map((seen) => stateOf(seen, 'uptime_percent'))).toEqual([
          'green',
          'unknown',
          'unknown',
        ])
        expect(new Set([sunday, young, dark].map((seen) => postureUnknown(seen)?.what)).size).toBe(3)
      })
    })
  })

  test('pending migrations are found by comparing with what is shipped', async () => {
    const files = await readSqlFiles(sqlFolder)
    const pending = async (sqlFiles: typeof files) => {
      const seen = await posture(autopilot, { slo: shipped, sqlFiles })
      return seen.checks.find(({ name }) => name === 'pending_migrations')
    }
    expect(await pending(files)).toMatchObject({ state: 'green', observed: '0' })
    const [first] = files.migrations
    if (!first) throw new Error('no migration')
    const more = { ...files, migrations: [...files.migrations, { ...first, name: '9999_later' }] }
    expect(await pending(more)).toMatchObject({ state: 'red', observed: '1' })
  })

  // ---- what was judged

  /** A judgement as the watch would make it, newer than those before it. */
  const recorded = async (states: Record<string, State>, driver = autopilot, as_of?: string) => {
    const [row] = await sql(`select tms._utc(clock_timestamp()) as now`)
    return granted(
      await driver.call('posture_record', {
        request_id: randomUUID(),
        as_of: as_of ?? String(row?.['now']),
        verdict: Object.values(states).includes('red') ? 'red' : 'green',
        score: { low: '50', high: '60', grade: 'D' },
        checks: Object.entries(states).map(([name, state]) => ({
          name,
          state,
          observed: '1',
          comparison: 'at most',
          limit: '0',
        })),
      }),
    )
  }
  const announced = async (topic = 'posture.changed') =>
    Number((await sql(`select count(*)::int as n from tms.outbox_events where topic = $1`, [topic]))[0]?.['n'])

  describe('a change', () => {
    test('is announced once, and not again while nothing changes', async () => {
      expect(await recorded({ a: 'green', b: 'red' })).toMatchObject({ recorded: true, announced: true })
      for (let again = 0; again < 3; again += 1)
        expect(await recorded({ a: 'green', b: 'red' })).toMatchObject({ announced: false, changes: [] })
      expect(await announced()).toBe(1)
      expect((await recorded({ a: 'green', b: 'green' })).changes).toMatchObject([
        { check: 'b', from: 'red', to: 'green' },
      ])
      expect(await announced()).toBe(2)
    })

    test('that two see at once is announced once, however often', async () => {
      const other = await fleet.subject.operator()
      try {
        // connected before it matters
        await recorded({ a: 'green' }, other)
        for (let round = 1; round <= 10; round += 1) {
          const state = round % 2 === 0 ? 'green' : 'red'
          const both = await Promise.all([autopilot, other].map((driver) => recorded({ a: state }, driver)))
          expect(both.filter((one) => one.announced)).toHaveLength(1)
          expect(await announced()).toBe(round + 1)
        }
      } finally {
        await other.close()
      }
    })

    test('seen in older facts than those judged last is none', async () => {
      const [row] = await sql(`select tms._utc(clock_timestamp()) as now`)
      await recorded({ a: 'green' })
      expect(await recorded({ a: 'red' }, autopilot, String(row?.['now']))).toMatchObject({
        recorded: false,
        announced: false,
      })
      expect(await announced()).toBe(1)
      await expect(recorded({ a: 'red' }, autopilot, '2999-01-01T00:00:00.000000Z')).rejects.toMatchObject({
        code: 'INPUT_INVALID',
      })
    })

    test('is in the ledger, and what stands can be read', async () => {
      await recorded({ a: 'red' })
      const state = granted(await ops.call('posture_state', { limit: 5 }))
      expect(state).toMatchObject({
        state: { verdict: 'red' },
        checks: [{ check: 'a', state: 'red' }],
        changes: [{ verdict: 'red' }],
      })
      const [row] = await sql(
        `select count(*)::int as n from tms.ledger_inbox where action = 'posture.changed' and subject = 'posture red'`,
      )
      expect(Number(row?.['n'])).toBeGreaterThan(0)
    })

    test('a whole judgement of real facts can be recorded', async () => {
      const seen = await look()
      expect(await recordPosture(autopilot, seen)).toMatchObject({ recorded: true, announced: true })
      expect(await recordPosture(autopilot, seen)).toMatchObject({ recorded: false, announced: false })
    })
  })

  // ---- consequences

  describe('a consequence', () => {
    const act = async (
      action: Consequence,
      check = 'a',
      more: { agent?: string; report_only?: boolean } = {},
      driver = autopilot,
    ) =>
      driver.call('posture_act', {
        request_id: randomUUID(),
        action,
        check,
        observed: '1',
        limit: 'at most 0',
        percent: 50,
        least: 10,
        ...more,
      })
    const acted = async (...args: Parameters<typeof act>) => granted(await act(...args))
    const undo = (id: string | null, driver = fleet.operator) => undoAction(driver, id ?? '', 'it is over')
    /** All that flags say: every stored row, without what tells of the change itself. */
    const flags = () =>
      sql(
        `select key, level, environment, company_id::text, value::text, rollout, canary::text, cohort_name, wait_seconds, stage_since from tms.feature_flags_v2 order by 1, 2, 3, 4`,
      )
    const value = async (key: string, tenant?: string) =>
      granted(await fleet.operator.call('flags_get', { key, tenant })).flag.value
    const agentState = async (wanted: string) =>
      granted(await fleet.operator.call('agents_list', {})).agents.find(({ agent }) => agent === wanted)?.state

    test.each([
      ['throttle', 'budget.agents.maxConcurrent', 75],
      ['freeze', 'ops.releaseFreeze', true],
      ['pause_replay', 'ops.replayEnabled', false],
    ] as const)('%s is done, and undone leaves every flag as it was', async (action, key, after) => {
      await fleet.set('ops.replayEnabled', true, 'globex')
      const before = await flags()
      await recorded({ a: 'red' })
      const done = await acted(action)
      expect([done.acted, await value(key)]).toEqual(['done', after])
      // the tenant's own setting too
      if (action === 'pause_replay') expect(await value(key, 'globex')).toBe(false)
      expect(await undo(done.id)).toMatchObject({ action, left: [] })
      expect(await flags()).toEqual(before)
    })

    test('a partly rolled out flag comes back with its rollout', async () => {
      granted(
        await fleet.operator.call('flags_set', {
          request_id: randomUUID(),
          key: 'ops.releaseFreeze',
          level: 'environment',
          value: true,
          percentage: '12.5',
          canary: ['acme'],
          why: 'x',
        }),
      )
      const before = await flags()
      await recorded({ a: 'red' })
      const done = await acted('freeze')
      expect(await value('ops.releaseFreeze')).toBe(true)
      await undo(done.id)
      expect(await flags()).toEqual(before)
      granted(
        await fleet.operator.call('flags_set', {
          request_id: randomUUID(),
          key: 'ops.releaseFreeze',
          level: 'environment',
          unset: true,
          why: 'x',
        }),
      )
    })

    test('quarantine takes one agent out of work, and undone it stands as before', async () => {
      await recorded({ a: 'red' })
      const done = await acted('quarantine', 'a', { agent: 'rates' })
      expect([done.before, done.after, await agentState('rates'), await agentState('demo')]).toEqual([
        'running',
        'quarantined',
        'quarantined',
        'running',
      ])
      await undo(done.id)
      expect(await agentState('rates')).toBe('running')
      expect(await act('quarantine', 'a', { agent: 'nosuch' })).toMatchObject({ acted: 'undone' })
    })

    test('happens once for each breach, and again only after it was over', async () => {
      await recorded({ a: 'red' })
      const first = await acted('throttle')
      for (let tick = 0; tick < 3; tick += 1) {
        await recorded({ a: 'red' })
        expect(await acted('throttle')).toMatchObject({ acted: 'in force', id: first.id })
      }
      expect(await value('budget.agents.maxConcurrent')).toBe(75)
      await undo(first.id)
      // a person decided: not again while the breach goes on, not even after a gap in the measurements
      await recorded({ a: 'unknown' })
      await recorded({ a: 'red' })
      expect(await acted('throttle')).toMatchObject({ acted: 'undone' })
      await recorded({ a: 'green' })
      await recorded({ a: 'red' })
      const second = await acted('throttle')
      expect(second.acted).toBe('done')
      await undo(second.id)
    })

    test('of another breach that is in force already is not done on top', async () => {
      await recorded({ a: 'red', b: 'red' })
      const first = await acted('throttle', 'a')
      expect(await acted('throttle', 'b')).toMatchObject({ acted: 'in force', id: first.id })
      await undo(first.id)
      // what was undone during this breach too stays undone
      expect(await acted('throttle', 'b')).toMatchObject({ acted: 'undone' })
    })

    test('needs a breach on record', async () => {
      await recorded({ a: 'green', b: 'unknown' })
      for (const check of ['a', 'b', 'nosuch'])
        expect(await act('freeze', check)).toHaveProperty('refused.code', 'CONFLICT')
      expect(await value('ops.releaseFreeze')).toBe(false)
    })

    test('that is only reported changes nothing, is told once, and is done once that is wanted', async () => {
      const before = await flags()
      await recorded({ a: 'red' })
      const told = await announced('posture.acted')
      expect(await acted('throttle', 'a', { report_only: true })).toMatchObject({
        acted: 'reported',
        before: 150,
        after: 75,
      })
      expect(await acted('throttle', 'a', { report_only: true })).toMatchObject({ acted: 'reported already' })
      expect(await flags()).toEqual(before)
      expect(await announced('posture.acted')).toBe(told + 1)
      const done = await acted('throttle')
      expect(done.acted).toBe('done')
      await undo(done.id)
    })

    test('that somebody changed meanwhile is left as that person wants it', async () => {
      await recorded({ a: 'red' })
      const done = await acted('throttle')
      const level = { key: 'budget.agents.maxConcurrent', level: 'environment' as const, why: 'by hand' }
      granted(await fleet.operator.call('flags_set', { request_id: randomUUID(), ...level, value: 33 }))
      expect(await undo(done.id)).toMatchObject({
        restored: 0,
        left: ['budget.agents.maxConcurrent of environment development'],
      })
      expect(await value('budget.agents.maxConcurrent')).toBe(33)
      granted(await fleet.operator.call('flags_set', { request_id: randomUUID(), ...level, unset: true }))
    })

    test('never throttles below the floor', async () => {
      await fleet.set('budget.agents.maxConcurrent', 12)
      await recorded({ a: 'red' })
      const done = await acted('throttle')
      expect(done.after).toBe(10)
      await undo(done.id)
      await fleet.set('budget.agents.maxConcurrent', 10)
      expect((await recorded({ a: 'green' })).recorded).toBe(true)
      await recorded({ a: 'red' })
      expect(await acted('throttle')).toMatchObject({ acted: 'nothing to do' })
      await fleet.set('budget.agents.maxConcurrent', 150)
    })

    test('safe mode follows from the score, and is left with its token only', async () => {
      await recorded({ health_score: 'red' })
      const done = await acted('safe_mode', 'health_score')
      expect(done.acted).toBe('done')
      expect((await look()).safe_mode).toBe(true)
      expect(
        await fleet.operator.call('posture_undo', { request_id: randomUUID(), id: done.id ?? '', why: 'x' }),
      ).toHaveProperty('refused.code', 'CONFLICT')
      expect(await acted('safe_mode', 'health_score')).toMatchObject({ acted: 'in force' })
      granted(
        await fleet.operator.call('safe_mode_off', {
          request_id: randomUUID(),
          override_token_sha256: 'ab'.repeat(32),
          why: 'over',
        }),
      )
      expect(granted(await autopilot.call('posture_actions', { limit: 1 })).actions).toMatchObject([
        { state: 'undone' },
      ])
      // a person left it: the same breach doesn't switch it on again
      expect(await acted('safe_mode', 'health_score')).toMatchObject({ acted: 'undone' })
    })

    test('is recorded with before and after, in the list and in the ledger, and undone once', async () => {
      await recorded({ a: 'red' })
      const done = await acted('freeze')
      expect(await actionToUndo(autopilot, done.id ?? '')).toMatchObject({
        name: `freeze/${done.id}`,
        before: false,
        after: true,
        state: 'in force',
        check: 'a',
      })
      await undo(done.id)
      await expect(undo(done.id)).rejects.toMatchObject({ code: 'CONFLICT' })
      const rows = await sql(
        `select action from tms.ledger_inbox where body::jsonb ->> 'action' = $1 and action like 'posture.%' order by id`,
        [done.id],
      )
      expect(rows.map((row) => row['action'])).toEqual(['posture.freeze', 'posture.undo'])
      expect(granted(await ops.call('posture_actions', { limit: 1 })).actions).toMatchObject([
        { state: 'undone', undone_why: 'it is over' },
      ])
    })

    test('is started again by a person and by no machine', async () => {
      await recorded({ a: 'red' })
      const done = await acted('freeze')
      for (const driver of [autopilot, fleet.worker, ...(people ? [ops] : [])])
        expect(
          await driver.call('posture_undo', { request_id: randomUUID(), id: done.id ?? '', why: 'x' }),
        ).toHaveProperty('refused.code', 'ROLE_DENIED')
      if (people) expect(await act('throttle', 'a', {}, ops)).toHaveProperty('refused.code', 'ROLE_DENIED')
      expect(await value('ops.releaseFreeze')).toBe(true)
      await undo(done.id)
    })

    test('is drawn as the policy says: enough samples, report-only, the agent to blame', async () => {
      const seen = await look()
      const check = (wanted: string) => {
        const found = seen.checks.find((one) => one.name === wanted)
        if (!found) throw new Error(wanted)
        return found
      }
      const red = (samples: number): Posture => ({
        ...seen,
        agents: [{ agent: 'rates', completed: '10', failed: '90' }],
        checks: [{ ...check('task_success_percent'), state: 'red', observed: '10', samples }],
      })
      await recorded({ task_success_percent: 'red' })
      expect((await actOnPosture(autopilot, red(49), shipped)).map(({ acted }) => acted)).toEqual(
        Array(3).fill('too few samples'),
      )
      const all = await actOnPosture(autopilot, red(50), shipped)
      expect(all.map(({ action, acted, subject }) => [action, acted, subject])).toEqual([
        ['throttle', 'done', 'fleet'],
        ['freeze', 'done', 'fleet'],
        ['quarantine', 'reported', 'agent rates'],
      ])
      expect(await agentState('rates')).toBe('running')
      const acting = {
        ...shipped,
        consequences: { ...shipped.consequences, quarantine: { report_only: false, samples: 50 } },
      }
      expect((await actOnPosture(autopilot, red(50), acting)).map(({ acted }) => acted)).toEqual([
        'in force',
        'in force',
        'done',
      ])
      expect(await agentState('rates')).toBe('quarantined')
      for (const { id, state } of granted(await autopilot.call('posture_actions', { limit: 9 })).actions)
        if (state === 'in force') await undo(id)
      expect(await agentState('rates')).toBe('running')
    })
  })
})
