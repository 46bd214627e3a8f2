import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sqlBeside, subjects } from '../contract/subjects.ts'
import { readyFleet, type Fleet } from '../fleet/fleet.ts'
import { loadInvariants } from '../../src/invariants/load.ts'
import { readInvariants } from '../../src/invariants/read.ts'
import { scanInvariants, showInvariant } from '../../src/invariants/scan.ts'
import { sealLedger } from '../../src/ledger/ledger.ts'
import { root } from '../ui/process.ts'

/** What tms says of its own tables: broken at random, exactly what was broken is found. */

const acme = `(select id from tms.companies where key = 'acme')`
const delivery = (id: number, event: number, rest: string) =>
  `insert into tms.outbox_deliveries (id, event_id, target, company_id, created_at, status, next_at) overriding system value
     values (${id}, ${event}, 'gone', ${acme}, now(), ${rest})`

/** How each is broken, and what must then be shown of it. */
const breakages: Readonly<Record<string, readonly [sql: string, shown: Readonly<Record<string, string | number>>]>> = {
  TASKS_WITHIN_LEASE: [
    `insert into tms.agent_tasks (id, company_id, agent, fn_name, status, max_attempts, next_run_at, claimed_at, payload) overriding system value
       values (9000001, ${acme}, 'demo', 'demo.one', 'running', 3, now(), now(), '{}')`,
    { task: '9000001' },
  ],
  TASKS_HAVE_POLICY: [
    `insert into tms.queues (company_id, agent, priority, touched_on) values (${acme}, 'gone', 0, current_date);
     insert into tms.agent_tasks (id, company_id, agent, fn_name, max_attempts, next_run_at, payload) overriding system value
       values (9000005, ${acme}, 'gone', 'gone.one', 3, now() - interval '1 hour', '{}')`,
    { agent: 'gone', tenant: 'acme', waiting: 1 },
  ],
  // to a target that is not there any more: as due as any other
  OUTBOX_WITHIN_SLO: [
    `insert into tms.outbox_events (id, company_id, topic, payload) overriding system value values (9000001, ${acme}, 'demo.x', '{}');
     ${delivery(9000001, 9000001, `'pending', clock_timestamp() - interval '2 minutes'`)}`,
    { delivery: '9000001' },
  ],
  LEDGER_SEALED: [
    `insert into tms.ledger_inbox (at, xid, who, credential, role, fn, action, outcome, subject, why, body, body_sha256)
       values (now() - interval '2 minutes', '1', 'x', 'x', 'x', 'x', 'broken', 'done', 'x', 'x', '{}', encode(sha256('{}'), 'hex'))`,
    { action: 'broken' },
  ],
  FLAGS_IN_CATALOGUE: [
    `insert into tms.feature_flags_v2 (key, level, value, updated_at, updated_by, updated_by_name, why)
       select 'no.such', 'global', 'true', now(), p.id, 'x', 'x' from tms.principals p limit 1`,
    { flag: 'no.such' },
  ],
  EFFECTS_HAVE_TASK: [
    `insert into tms.task_effects (task_id, company_id, claim, effects) values (9000002, ${acme}, 1, '{}')`,
    { task: '9000002' },
  ],
  REPLAYS_BALANCE: [
    `insert into tms.replay_runs (id, company_id, by_name, plan, items, bytes, tried, succeeded) overriding system value
       values (9000001, ${acme}, 'x', 'x', 3, 1, 2, 1)`,
    { replay: '9000001' },
  ],
  DELIVERIES_HAVE_EVENT: [delivery(9000002, 9000009, `'dead', now()`), { delivery: '9000002' }],
  RUNS_HAVE_TASK: [
    `insert into tms.agent_runs (task_id, claim, attempt, company_id, agent, fn_name, outcome, finished_at, ms, epoch)
       values (9000003, 1, 1, ${acme}, 'demo', 'demo.one', 'completed', now(), 1, 0)`,
    { task: '9000003' },
  ],
  SLOTS_WITHIN_LIMIT: [
    `insert into tms.workers (principal_id, request_id, name, host, pid, agents, wanted, slots, lease_until)
       select p.id, gen_random_uuid(), 'greedy', 'x', 1, '{}', 1000, 1000, now() + interval '1 hour' from tms.principals p limit 1`,
    { slots: 1000 },
  ],
  LETTERS_HAVE_TASK: [
    `insert into tms.dead_letter_queue (task_id, company_id, agent, fn_name, payload, bytes, error_class, error, attempts)
       values (9000004, ${acme}, 'demo', 'demo.one', '{}', 2, 'bug', 'x', 1)`,
    { task: '9000004' },
  ],
}
const mend = `delete from tms.agent_tasks where id >= 9000000;
  delete from tms.queues where agent = 'gone';
  delete from tms.outbox_deliveries where id >= 9000000;
  delete from tms.outbox_events where id >= 9000000;
  delete from tms.feature_flags_v2 where key = 'no.such';
  delete from tms.task_effects where task_id >= 9000000;
  delete from tms.replay_runs where id >= 9000000;
  delete from tms.agent_runs where task_id >= 9000000;
  delete from tms.workers where name = 'greedy';
  delete from tms.dead_letter_queue where task_id >= 9000000`

describe.each(Object.entries(subjects))("tms's own invariants through %s", (_, make) => {
  let fleet: Fleet
  beforeAll(async () => {
    fleet = await readyFleet(await make())
    const { problems } = await loadInvariants(fleet.operator, await readInvariants([join(root, 'policies')]))
    expect(problems).toEqual([])
  })
  afterAll(() => fleet.stop())

  const sql = (text: string) => sqlBeside(fleet.subject, fleet.operator)(text)
  const whole = async () => {
    await sql(mend)
    // a fresh database has just been set up, and a fleet that came back has its time
    await sql(`update tms.resumption set since = now() - interval '1 hour'`)
    // what this test itself has changed, however slowly
    await sealLedger(fleet.operator, { everything: true })
  }
  const violated = async () =>
    (await scanInvariants(fleet.operator)).checks
      .filter(({ outcome }) => outcome !== 'holds')
      .map(({ invariant, outcome, why }) => (outcome === 'violated' ? invariant : `${invariant}: ${why}`))

  test('hold where nothing is broken, and name exactly what is', async () => {
    expect(Object.keys(breakages)).toHaveLength(11)
    await fc.assert(
      fc.asyncProperty(fc.subarray(Object.keys(breakages).toSorted()), async (broken) => {
        await whole()
        for (const name of broken) await sql(breakages[name]?.[0] ?? '')
        expect((await violated()).toSorted()).toEqual(broken)
        for (const name of broken) {
          const { sample } = await showInvariant(fleet.operator, name)
          expect(sample).toMatchObject([breakages[name]?.[1] ?? {}])
        }
      }),
      { numRuns: 6, examples: [[[]], [Object.keys(breakages).toSorted()]] },
    )
  })

  test('a delivery that is being sent by nobody is late, too', async () => {
    await whole()
    await sql(`insert into tms.outbox_events (id, company_id, topic, payload) overriding system value values (9000001, ${acme}, 'demo.x', '{}');
      ${delivery(9000001, 9000001, `'sending', clock_timestamp() - interval '5 minutes'`)}`)
    expect(await violated()).toEqual(['OUTBOX_WITHIN_SLO'])
  })

  test('a delivery that waits its turn, or waited for a halt, is not late: what it waits behind may be', async () => {
    await whole()
    const last = 'coalesce((select max(id) from tms.halts), 0)'
    const [{ id } = {}] = await sql(`select ${last}::text as id`)
    const due = `'pending', clock_timestamp() - interval '2 minutes'`
    await sql(`insert into tms.outbox_events (id, company_id, topic, payload) overriding system value values (9000001, ${acme}, 'demo.x', '{}');
      ${delivery(9000001, 9000001, `'pending', clock_timestamp() + interval '5 minutes'`)};
      ${delivery(9000002, 9000001, due)};
      update tms.outbox_deliveries set ordering_key = 'one load', attempts = 4 where id = 9000001;
      update tms.outbox_deliveries set ordering_key = 'one load' where id = 9000002`)
    expect(await violated()).toEqual([])
    await sql(`update tms.outbox_deliveries set ordering_key = 'another load' where id = 9000002`)
    expect(await violated()).toEqual(['OUTBOX_WITHIN_SLO'])
    await sql(`insert into tms.halts (kind, epoch, at, by_id, by_name, why, fenced, ms_to_fence, waited_for, terminated, survivors, in_flight, resumed_at)
      select 'halt', 0, now() - interval '5 minutes', p.id, 'x', '', true, 1, '0', '[]', '[]', 0, clock_timestamp() - interval '5 seconds' from tms.principals p limit 1`)
    expect(await violated()).toEqual([])
    await sql(
      `update tms.halts set resumed_at = clock_timestamp() - interval '2 minutes' where id = ${last} and id > ${String(id)}`,
    )
    expect(await violated()).toEqual(['OUTBOX_WITHIN_SLO'])
  })

  test('a fleet that has just come back by steps has time to give up its slots', async () => {
    await whole()
    await sql(breakages['SLOTS_WITHIN_LIMIT']?.[0] ?? '')
    await sql('update tms.resumption set since = clock_timestamp()')
    expect(await violated()).toEqual([])
  })
})
