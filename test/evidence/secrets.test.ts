import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { randomUUID } from 'node:crypto'
import * as fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { granted } from '../../src/drivers/refusal.ts'
import { postgresSubject } from '../contract/subjects.ts'
import { around, planted } from '../redaction/secrets.ts'
import { readyDesk, type Desk } from './desk.ts'

/**
 * Secrets and personal data wherever somebody could leave them, also behind the back of what redacts on the way in:
 * nothing of it is found in any file of a pack.
 */

const count = process.env.TMS_TEST_FULL === '1' ? 400 : 80
// What a text says between quotes or before a colon is still its text.
const all = fc
  .sample(fc.tuple(planted, around), { seed: 41, numRuns: count })
  .map(([{ secret, text }, [before, after]]) => ({ secret, text: `${before}${text}${after}` }))
/** What no pattern knows: only that it is never shown keeps it out. */
const plain = ['Ottilie-Quambusch', 'Birkenweg-17a', 'mother-of-pearl-7']

let desk: Desk
beforeAll(async () => {
  desk = await readyDesk(await postgresSubject())
  await desk.sql(`update tms.environment set initialised_at = now() - interval '9 days'`)
  const texts = [...all.map(({ text }) => text), ...plain.map((word) => `about ${word} and nobody else`)]
  // What is shown after redaction: what no pattern knows can't be kept out of it.
  const shown = all.map(({ text }) => text)
  /** `t` is each text, `n` its number, `acme` a tenant. */
  const plant = (statement: string, list: readonly string[] = texts) =>
    desk.sql(
      `with given as (select x.t, x.n::integer as n, (select c.id from tms.companies c where c.key = 'acme') as acme
         from jsonb_array_elements_text($1::text::jsonb) with ordinality x (t, n)) ${statement}`,
      [JSON.stringify(list)],
    )
  await plant(
    `insert into tms.flag_catalogue (key, type, default_value, safe_value, guarded, instead, owner, description, catalogue_sha256)
       select 'ops.planted' || n, 'json', to_jsonb(t), to_jsonb(t), false, '{}', t, t, repeat('a', 64) from given`,
    shown,
  )
  await plant(
    `insert into tms.feature_flags_v2 (key, level, company_id, value, updated_at, updated_by, updated_by_name, why)
       select 'ops.planted' || n, 'tenant', acme, jsonb_build_object('note', t, 'deep', jsonb_build_array(t)), now(), gen_random_uuid(), t, t from given`,
    shown,
  )
  await plant(
    `insert into tms.agent_runs (task_id, claim, attempt, company_id, agent, fn_name, outcome, error_class, error, finished_at, ms, epoch, trace_id)
       select 900000 + n, 1, 1, acme, 'demo', 'demo.one', 'failed', 'bug', t, now() - interval '1 second', 5, 0, t from given`,
  )
  await plant(
    `insert into tms.agent_tasks (company_id, agent, fn_name, status, max_attempts, next_run_at, payload, output, error)
       select acme, 'demo', 'demo.one', 'completed', 3, now(), jsonb_build_object('note', t), to_jsonb(t), t from given`,
  )
  await plant(
    `insert into tms.agent_logs (at, company_id, agent, level, message, fields) select now(), acme, 'demo', 'info', t, to_jsonb(t) from given`,
  )
  const acts = (list: readonly string[], subject: string, actions: string) =>
    plant(
      `insert into tms.ledger_inbox (principal_id, who, credential, role, fn, action, outcome, company_id, subject, why, body, body_sha256)
         select p.id, t, t, 'super_admin', 'users_grant', a.action, a.outcome, acme, ${subject}, t, to_jsonb(t)::text, tms._sha256(to_jsonb(t)::text)
           from given cross join (values ${actions}) a (action, outcome)
           left join lateral (select x.id from tms.principals x where x.kind = 'human' limit 1) p on a.outcome = 'done'`,
      list,
    )
  const people = plain.map((word) => `about ${word} and nobody else`)
  await acts(people, 't', `('user.grant', 'done'), ('incident.note', 'done')`)
  await acts(people, `'harmless'`, `('flag.set', 'done'), ('flags_set', 'refused')`)
  await acts(shown, 'left(t, 400)', `('flag.set', 'done')`)
  await plant(
    `insert into tms.incidents (priority, type, dedupe_key, title, opened_by) select 'P3', 'test', n::text, left(t, 300), left(t, 100) from given`,
    shown,
  )
  await plant(
    `insert into tms.incidents (priority, type, dedupe_key, title, opened_by) select 'P1', 'emergency_stop', 'press ' || n, 'Emergency stop: ' || left(t, 280), t from given`,
    people,
  )
  await plant(
    `insert into tms.dead_letter_queue (task_id, company_id, agent, fn_name, payload, bytes, error_class, error, attempts)
       select 950000 + n, acme, 'demo', 'demo.one', to_jsonb(t), 10, 'bug', t, 3 from given`,
  )
  await plant(
    `insert into tms.outbox_deliveries (event_id, target, company_id, created_at, last_error) select n, 'x', acme, now(), t from given`,
  )
  for (const word of plain) {
    granted(await desk.driver.call('incident_open', { request_id: randomUUID(), priority: 'P3', title: `ask ${word}` }))
    granted(
      await desk.driver.call('users_grant', {
        request_id: randomUUID(),
        principal: word,
        role: 'viewer',
        tenant: 'acme',
      }),
    )
  }
})
afterAll(async () => desk.stop())

test('no planted secret or personal datum is in any file of a pack', async () => {
  const { folder } = await desk.build()
  const files = readdirSync(folder).map((name) => [name, readFileSync(join(folder, name), 'utf8')] as const)
  const found = files.flatMap(([name, text]) =>
    [...all.map(({ secret }) => secret), ...plain, desk.pem.split('\n')[1] ?? '', 'operator@example.com']
      .filter((secret) => text.includes(secret) || text.includes(JSON.stringify(secret).slice(1, -1)))
      .map((secret) => `${name}: ${secret}`),
  )
  expect(found).toEqual([])
  // Something was there to be found: redacted, and in several files.
  const marks = files.filter(([, text]) => text.includes('[redacted:')).map(([name]) => name)
  expect(marks).toEqual(
    expect.arrayContaining(['alerts.sql.out', 'audit_digest.json', 'flags.json', 'index.html', 'slo_snapshot.json']),
  )
})
