import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { contract, type ContractFunction } from '../../src/drivers/contract.ts'
import type { Driver, Refused } from '../../src/drivers/driver.ts'
import { granted as orThrow } from '../../src/drivers/refusal.ts'
import { TmsError } from '../../src/errors.ts'
import { loadCatalogue, parseCatalogue } from '../../src/flags/catalogue.ts'
import { policy } from '../fleet/fleet.ts'
import type { Attempt, Work } from './attempts/attempt.ts'
import { evidenceAttempts } from './attempts/evidence.ts'
import { incidentsAttempts } from './attempts/incidents.ts'
import { invariantsAttempts } from './attempts/invariants.ts'
import { ledgerAttempts } from './attempts/ledger.ts'
import { postureAttempts } from './attempts/posture.ts'
import { securityAttempts } from './attempts/security.ts'
import { granted, humanRoles, isTenantRole, portalAccess, portals, serviceAccounts, type Reach } from './roles.ts'
import { embeddedOnce, subjects, type Subject } from './subjects.ts'

const catalogue = parseCatalogue(
  'flags.yaml',
  `flags:
  ops.try: { type: boolean, default: false, safe: false, owner: x, description: x }
  budget.try: { type: integer, default: 1, safe: 1, owner: x, description: x }
  finance.try: { type: boolean, default: false, safe: false, owner: x, description: x }
  other.try: { type: boolean, default: false, safe: false, owner: x, description: x }
${portals.map((key) => `  portal.${key}.enabled: { type: boolean, default: true, safe: false, owner: x, description: x }`).join('\n')}
`,
)

const policies = [
  policy('walk'),
  policy('finance', { functions: ['finance.pay'], approval: ['finance.pay'], publish: [], enqueue: [] }),
]
const targets = [{ name: 'walk', kind: 'webhook' as const, topics: ['walk.*'], config: {} }]

/** Valid arguments for every function of the contract that needs a grant; a function without a line here fails the test. */
const attempts: readonly Attempt[] = [
  { fn: 'flags_list', args: () => ({}) },
  { fn: 'flags_get', subject: 'ops.try', args: () => ({ key: 'ops.try' }) },
  { fn: 'flags_history', args: () => ({ limit: 5 }) },
  { fn: 'flags_rollout_state', args: () => ({ key: 'ops.try' }) },
  { fn: 'flags_verify', args: () => ({}) },
  { fn: 'flags_catalogue', args: () => ({ sha256: catalogue.sha256, entries: catalogue.entries }) },
  ...(['ops.try', 'budget.try', 'finance.try', 'other.try'] as const).map((key) => ({
    fn: 'flags_set' as const,
    subject: key,
    args: () => ({ key, value: key === 'budget.try' ? 2 : true, why: 'the walk' }),
  })),
  { fn: 'flags_rollout', subject: 'ops.try', args: () => ({ key: 'ops.try', step: 'off', why: 'the walk' }) },
  { fn: 'tenants_list', args: () => ({}) },
  { fn: 'tenants_add', args: () => ({ key: `w-${randomUUID()}`, name: 'walk' }) },
  { fn: 'users_list', args: () => ({}) },
  { fn: 'users_grant', args: () => ({ principal: `walk-${randomUUID()}`, role: 'viewer' }) },
  { fn: 'users_revoke', args: () => ({ principal: 'walk-nobody' }) },
  { fn: 'accounts_list', args: () => ({}) },
  {
    fn: 'accounts_rotate',
    args: () => ({
      account: 'n8n',
      kind: 'key',
      name: randomUUID(),
      secret_sha256: 'a'.repeat(64),
      overlap_seconds: 0,
    }),
  },
  { fn: 'portals_list', args: () => ({}) },
  { fn: 'ledger_tail', args: () => ({ limit: 5 }) },
  {
    fn: 'environment_init',
    args: () => ({ environment: 'development', override_token_sha256: 'a'.repeat(64), signing_key_fingerprint: null }),
  },
  { fn: 'doctor', args: () => ({}) },

  { fn: 'fence_state', args: () => ({}) },
  { fn: 'guard_check', args: () => ({}) },
  { fn: 'worker_hello', args: () => ({ name: 'walk', host: 'walk', pid: 1, agents: ['walk'], slots: 0 }) },
  { fn: 'worker_beat', args: () => ({ worker: '0' }) },
  { fn: 'worker_settings', args: () => ({}) },
  { fn: 'worker_bye', args: () => ({ worker: '0' }) },
  { fn: 'tasks_enqueue', args: () => ({ tasks: [{ function: 'walk.one' }] }) },
  { fn: 'tasks_claim', args: () => ({ worker: '0', limit: 1 }) },
  { fn: 'tasks_finish', args: () => ({ worker: '0' }) },
  { fn: 'tasks_spend', args: ({ careful }) => ({ worker: '0', id: careful, claim: 0, calls: 1 }) },
  { fn: 'tasks_step', args: ({ careful }) => ({ worker: '0', id: careful, claim: 0, name: 'walk', result: 1 }) },
  { fn: 'tasks_reap', args: () => ({}) },
  {
    fn: 'tasks_approve',
    subject: 'walk.careful',
    args: ({ careful }) => ({ id: careful, approve: false, why: 'the walk' }),
  },
  {
    fn: 'tasks_approve',
    subject: 'finance.pay',
    args: ({ payment }) => ({ id: payment, approve: false, why: 'the walk' }),
  },
  { fn: 'tasks_waiting', args: () => ({ limit: 5 }) },
  { fn: 'upkeep', args: () => ({}) },
  { fn: 'agents_policies_load', args: () => ({ policies }) },
  { fn: 'agents_list', args: () => ({}) },
  { fn: 'agents_control', args: () => ({ state: 'draining', why: 'the walk' }), undo: (by) => running(by, 'tenant') },
  {
    fn: 'agents_control',
    args: () => ({ agent: 'walk', state: 'paused', why: 'the walk' }),
    undo: (by) => running(by, 'agent'),
  },
  { fn: 'agents_settle', args: () => ({ grace_ms: 0 }) },
  { fn: 'agents_runs', args: () => ({ limit: 5 }) },
  { fn: 'agents_logs', args: () => ({ limit: 5 }) },
  { fn: 'agents_metrics', args: () => ({}) },
  { fn: 'outbox_claim', args: () => ({ limit: 1, targets: ['none'] }) },
  { fn: 'outbox_finish', args: () => ({ results: [] }) },
  { fn: 'outbox_targets_set', args: () => ({ targets }) },
  { fn: 'outbox_list', args: () => ({ limit: 5 }) },
  { fn: 'outbox_retry', args: ({ delivery }) => ({ ids: [delivery], why: 'the walk' }) },
  { fn: 'outbox_lag', args: () => ({}) },
  { fn: 'dlq_list', args: () => ({ limit: 5 }) },
  { fn: 'dlq_stats', args: () => ({}) },
  { fn: 'dlq_plan', args: () => ({ limit: 5 }) },
  { fn: 'dlq_replay', args: ({ letter }) => ({ ids: [letter], plan: 'none', why: 'the walk' }) },
  { fn: 'dlq_dispose', args: ({ letter }) => ({ ids: [letter], action: 'discard', why: 'the walk' }) },
  {
    fn: 'door_admit',
    args: () => ({
      key_id: 'x',
      key_sha256: 'a'.repeat(64),
      nonce: 'a'.repeat(24),
      timestamp: 0,
      address: '127.0.0.1',
      operation: 'task.enqueue',
    }),
  },
  { fn: 'door_knock', args: () => ({ address: '127.0.0.1' }) },

  ...ledgerAttempts,
  ...evidenceAttempts,
  ...postureAttempts,
  ...incidentsAttempts,
  ...invariantsAttempts,
  ...securityAttempts,

  { fn: 'fence_halt', args: () => ({ why: 'the walk', grace_ms: 0 }), undo: resumed },
  { fn: 'fence_certificate', args: () => ({ halt: '1' }) },
  { fn: 'fence_resume', args: () => ({ step: 'prepare', why: 'the walk' }) },
  { fn: 'safe_mode_on', args: () => ({ why: 'the walk' }), undo: safeModeLeft },
  // the hash that `safeModeLeft` uses: whoever may, changes nothing
  { fn: 'override_token_rotate', args: () => ({ override_token_sha256: 'a'.repeat(64), why: 'the walk' }) },
  { fn: 'safe_mode_off', args: () => ({ override_token_sha256: 'b'.repeat(64), why: 'the walk' }) },
]

async function resumed(operator: Driver): Promise<void> {
  for (const step of ['prepare', 'lift'] as const)
    orThrow(await operator.call('fence_resume', { request_id: randomUUID(), step, why: 'the walk goes on' }))
}

async function safeModeLeft(operator: Driver): Promise<void> {
  const override_token_sha256 = 'a'.repeat(64)
  orThrow(
    await operator.call('safe_mode_off', { request_id: randomUUID(), override_token_sha256, why: 'the walk goes on' }),
  )
}

async function running(operator: Driver, what: 'agent' | 'tenant'): Promise<void> {
  const names = what === 'agent' ? [{ agent: 'walk' }] : [{ tenant: 'acme' }, { tenant: 'globex' }]
  for (const name of names)
    orThrow(
      await operator.call('agents_control', { request_id: randomUUID(), ...name, state: 'running', why: 'goes on' }),
    )
}

const reaches: readonly Reach[] = ['own tenant', 'other tenant', 'no tenant']

type Walked = { readonly wrong: readonly string[]; readonly undo: ReadonlySet<NonNullable<Attempt['undo']>> }

/** Everything the list says of one actor, tried through one driver; the lines where the database says otherwise. */
async function walk(driver: Driver, role: string, work: Work, tried = attempts): Promise<Walked> {
  const wrong: string[] = []
  const undo = new Set<NonNullable<Attempt['undo']>>()
  for (const { fn, subject, args, undo: afterwards } of tried) {
    const { operation, args: schema, reads } = contract[fn]
    const { shape } = schema()
    if (operation === null) throw new Error(`${fn} needs no grant`)
    const takesTenant = 'tenant' in shape
    for (const reach of takesTenant ? reaches : (['no tenant'] as const)) {
      const writes = reads === false
      const tenant = reach === 'own tenant' ? 'acme' : reach === 'other tenant' ? 'globex' : undefined
      const input = {
        ...args(work),
        ...('request_id' in shape ? { request_id: randomUUID() } : {}),
        ...(tenant === undefined ? {} : { tenant }),
        ...(fn === 'flags_set' ? { level: tenant === undefined ? 'global' : 'tenant' } : {}),
      }
      const said = await outcome(driver, fn, input)
      if (said === 'granted' && afterwards) undo.add(afterwards)
      const listed = granted(role, operation, reach, writes, subject) ? 'granted' : 'refused'
      if (said !== listed)
        wrong.push(`${role} ${fn} ${subject ?? ''} ${reach}: the list says ${listed}, the database ${said}`)
    }
  }
  return { wrong, undo }
}

/** A call that gets past the permission check and fails later was granted. */
async function outcome(
  driver: Driver,
  fn: ContractFunction,
  args: Record<string, unknown>,
): Promise<'granted' | 'refused'> {
  try {
    // True because `attempts` has valid arguments for each function, which the granted calls prove.
    const answer: object | Refused = await driver.call(fn, args)
    if (!('refused' in answer)) return 'granted'
    return ['ROLE_DENIED', 'ENVIRONMENT_DENIED'].includes(answer.refused.code) ? 'refused' : 'granted'
  } catch (error) {
    if (error instanceof TmsError && error.code === 'INPUT_INVALID') return 'granted'
    // row security, the second line
    if (error instanceof TmsError && error.code === 'ROLE_DENIED') return 'refused'
    throw error
  }
}

const fleetTables = [
  'signing_keys',
  'ledger_checkpoints',
  'ledger_witnesses',
  'evidence_cuts',
  'evidence_packs',
  'evidence_tombstones',
  'halt_certificates',
  'halt_signatures',
  'incident_events',
  'incident_halts',
  'incident_levers',
  'incident_snapshots',
  'incidents',
  'invariants',
  'invariant_violations',
  'drift_scores',
  'posture_actions',
  'posture_checks',
  'posture_states',
  'probes',
  'resume_approvals',
  'resumption',
  'security_blocks',
  'fence',
  'halts',
  'agent_policies',
  'agent_functions',
  'agent_state',
  'agent_pulse',
  'tenant_state',
  'spend',
  'task_spend',
  'workers',
  'agent_tasks',
  'agent_tasks_history',
  'queues',
  'agent_runs',
  'task_steps',
  'task_effects',
  'agent_logs',
  'agent_metrics',
  'run_digests',
  'dead_letter_queue',
  'replay_runs',
  'outbox_targets',
  'outbox_events',
  'outbox_keys',
  'outbox_deliveries',
  'edge_nonces',
  'edge_rate_limits',
]

/** What a refused call must leave as it was; the records of refusals themselves aside. */
const state = `select md5(string_agg(t, '|' order by t)) as sum from (
  select 'c' || x::text from tms.companies x union all select 'p' || x::text from tms.principals x
  union all select 'm' || x::text from tms.memberships x union all select 'l' || x::text from tms.logins x
  union all select 'f' || x::text from tms.feature_flags_v2 x union all select 'h' || x::text from tms.feature_flags_history x
  union all select 'k' || x::text from tms.flag_catalogue x union all select 'e' || x::text from tms.environment x
  union all select 'mark' || last_value from tms.fence_mark union all select 'safe' || last_value from tms.safe_mode_mark
  ${fleetTables.map((table) => `union all select '${table}' || x::text from tms.${table} x`).join(' ')}) s (t)`

test('the walk tries every function that needs a grant', () => {
  const functions = Object.keys(contract) as ContractFunction[]
  const needing = functions.filter((fn) => contract[fn].operation !== null)
  expect(new Set(attempts.map(({ fn }) => fn))).toEqual(new Set(needing))
})

describe.each(Object.entries({ ...subjects, embedded: embeddedOnce }))('through the %s driver', (_name, start) => {
  let subject: Subject
  let work: Work
  const credentials = new Map<string, string>()

  beforeAll(async () => {
    subject = await start()
    const made = await Promise.all(
      humanRoles
        .filter((role) => role !== 'super_admin')
        .map(async (role) => [role, await subject.credential(role)] as const),
    )
    const operator = await subject.operator()
    const call = async (fn: ContractFunction, args: object) =>
      // True because these are written out below, and a wrong one is refused.
      orThrow(await operator.call(fn, { request_id: randomUUID(), ...args }))
    await call('environment_init', {
      environment: 'development',
      override_token_sha256: 'a'.repeat(64),
      signing_key_fingerprint: null,
    })
    await loadCatalogue(operator, catalogue)
    await call('tenants_add', { key: 'acme', name: 'Acme' })
    await call('tenants_add', { key: 'globex', name: 'Globex' })
    await call('agents_policies_load', { policies })
    await call('outbox_targets_set', { targets })
    for (const [role, credential] of made) {
      await call('users_grant', {
        principal: `${role}@acme`,
        role,
        credential,
        ...(isTenantRole(role) ? { tenant: 'acme' } : {}),
      })
      credentials.set(role, credential.name)
    }
    await operator.close()
    work = await makeWork(subject)
    for (const account of serviceAccounts) credentials.set(account, await subject.account(account))
  })
  afterAll(() => subject.stop())

  const as = async <T>(role: string, work: (driver: Driver) => Promise<T>): Promise<T> => {
    const driver = role === 'super_admin' ? await subject.operator() : await subject.as(credentials.get(role) ?? '')
    try {
      return await work(driver)
    } finally {
      await driver.close()
    }
  }

  /** With what else is to be seen as this role. */
  const walkAs = async (role: string, more?: (driver: Driver) => Promise<void>): Promise<Walked> => {
    const walked = await as(role, async (driver) => {
      await more?.(driver)
      return walk(driver, role, work)
    })
    if (walked.undo.size > 0)
      await as('super_admin', async (operator) => {
        for (const undo of walked.undo) await undo(operator)
      })
    return walked
  }

  test.each(humanRoles)(
    '%s may do what roles.yaml grants and nothing else, and opens the portals of the list',
    async (role) => {
      const { wrong } = await walkAs(role, (driver) => opensItsPortals(driver, role))
      expect(wrong).toEqual([])
    },
  )

  test.each(serviceAccounts)('%s may do what roles.yaml grants and nothing else', async (role) => {
    expect((await walkAs(role)).wrong).toEqual([])
  })

  test('a super_admin is told what opens to each role', async () => {
    await as('super_admin', async (driver) => {
      for (const role of humanRoles) {
        for (const portal of portals) {
          const check = orThrow(await driver.call('portals_check', { portal, as: role }))
          expect([portal, check.access, check.enabled]).toEqual([portal, portalAccess(role, portal), true])
        }
      }
    })
  })

  test('a refused call changes nothing', async () => {
    // Of the viewer's own tenant, and open to every change that is tried.
    const open = await makeWork(subject)
    const before = await subject.sql(state)
    await as('viewer', async (driver) => {
      for (const { fn, args } of attempts) {
        const { reads, args: schema } = contract[fn]
        const { shape } = schema()
        if (reads !== false) continue
        const input = {
          ...args(open),
          ...('request_id' in shape ? { request_id: randomUUID() } : {}),
          ...('tenant' in shape && fn !== 'flags_set' ? { tenant: 'acme' } : {}),
          ...(fn === 'flags_set' ? { level: 'global' } : {}),
        }
        expect(await outcome(driver, fn, input), fn).toBe('refused')
      }
    })
    expect(await subject.sql(state)).toEqual(before)
  })

  test('the break-glass account stops everything, says what it stopped, and does nothing else', async () => {
    const [task] = await subject.sql(
      `insert into tms.agent_tasks (company_id, agent, fn_name, status, max_attempts, next_run_at, payload)
         select id, 'walk', 'walk.one', 'running', 3, now(), '{}' from tms.companies where key = 'acme' returning id::text`,
    )
    try {
      await as('system', async (driver) => {
        const halted = orThrow(await driver.call('fence_halt', { why: 'break glass' }))
        const certificate = await driver.call('fence_certificate', {
          request_id: randomUUID(),
          halt: halted.halt ?? '',
        })
        expect([halted.fenced, halted.in_flight, orThrow(certificate).in_flight]).toEqual([true, 1, 1])
        expect(await driver.call('fence_state', {})).toHaveProperty('refused.code', 'ROLE_DENIED')
        expect(
          await driver.call('fence_resume', { request_id: randomUUID(), step: 'prepare', why: 'x' }),
        ).toHaveProperty('refused.code', 'ROLE_DENIED')
      })
      await as('super_admin', resumed)
    } finally {
      await subject.sql(`delete from tms.agent_tasks where id = $1::bigint`, [task?.['id']])
    }
  })

  test('every refusal is on record with who, what and why', async () => {
    const key = `rec-${randomUUID()}`
    await as('dispatcher', (driver) => driver.call('tenants_add', { request_id: randomUUID(), key, name: 'x' }))
    const [row] = await subject.sql(
      `select who, fn, outcome, why from tms.ledger_inbox where fn = 'tenants_add' and who = 'dispatcher@acme' limit 1`,
    )
    expect(row).toMatchObject({ who: 'dispatcher@acme', fn: 'tenants_add', outcome: 'refused' })
    const [counted] = await subject.sql(
      `select sum(count)::int as n from tms.refusals where who = 'dispatcher@acme' and fn = 'tenants_add'`,
    )
    expect(Number(counted?.['n'])).toBeGreaterThan(0)
  })

  test('another tenant and one that does not exist get the same answer', async () => {
    await as('viewer', async (driver) => {
      const [other, absent] = await Promise.all(
        ['globex', 'nosuch'].map(async (tenant) =>
          JSON.stringify(await driver.call('flags_list', { tenant })).replaceAll(tenant, '?'),
        ),
      )
      expect(other).toBe(absent)
    })
  })

  test('analysts and developers see no personal data', async () => {
    await as('super_admin', async (driver) =>
      orThrow(
        await driver.call('flags_set', {
          request_id: randomUUID(),
          key: 'other.try',
          level: 'tenant',
          tenant: 'acme',
          value: true,
          why: 'for ann@acme.example',
        }),
      ),
    )
    for (const role of ['analyst', 'developer']) {
      await as(role, async (driver) => {
        const seen = JSON.stringify([
          await driver.call('flags_list', { tenant: 'acme' }),
          await driver.call('flags_get', { tenant: 'acme', key: 'other.try' }),
          await driver.call('flags_history', { tenant: 'acme', limit: 10 }),
          await driver.call('ledger_tail', { tenant: 'acme', limit: 10 }),
        ])
        expect(seen).toContain('other.try')
        expect(seen).not.toMatch(/ann@acme|operator/)
      })
    }
  })

  test('a developer sees the work of the fleet, and no personal data in it', async () => {
    const why = 'for ann@acme.example'
    const { careful, delivery } = await makeWork(subject)
    await as('super_admin', async (operator) => {
      orThrow(await operator.call('fence_halt', { why, grace_ms: 0 }))
      await resumed(operator)
      for (const what of [{ agent: 'walk' }, { tenant: 'acme' }])
        orThrow(await operator.call('agents_control', { request_id: randomUUID(), ...what, state: 'draining', why }))
    })
    const look = (driver: Driver) =>
      Promise.all([
        driver.call('fence_state', {}),
        driver.call('agents_list', {}),
        driver.call('tasks_waiting', { tenant: 'acme', limit: 50 }),
        driver.call('agents_runs', { limit: 50 }),
        driver.call('agents_runs', { task: careful, limit: 50 }),
        driver.call('agents_logs', { limit: 50 }),
        driver.call('outbox_list', { limit: 50 }),
        driver.call('outbox_list', { id: delivery, limit: 50 }),
      ])
    const whole = await as('super_admin', look)
    const seen = await as('developer', look)
    await as('super_admin', async (operator) => {
      for (const what of ['agent', 'tenant'] as const) await running(operator, what)
    })
    for (const [index, answer] of seen.entries()) {
      // What a super_admin sees in it is there to be hidden.
      expect(JSON.stringify(whole[index])).toMatch(/ann@acme|operator/)
      expect(JSON.stringify(answer)).not.toMatch(/ann@acme|operator|refused/)
    }
  })

  test('a portal whose flag is off opens for nobody', async () => {
    await as('super_admin', async (driver) => {
      orThrow(
        await driver.call('flags_set', {
          request_id: randomUUID(),
          key: 'portal.crm.enabled',
          level: 'global',
          value: false,
          why: 'closed',
        }),
      )
      expect(orThrow(await driver.call('portals_check', { portal: 'crm' })).enabled).toBe(false)
    })
  })

  test('a developer may not write in production, and elsewhere only what is granted', async () => {
    // No function of this release is a developer's to write through, so one contract function lends itself to another
    // operation for a moment.
    const [before] = await subject.sql(`select pg_get_functiondef('tms.tenants_add(jsonb)'::regprocedure) as text`)
    const lent = String(before?.['text']).replace(`'tenants.manage'`, `'deploy.staging'`)
    const tryIt = () =>
      as('developer', (driver) =>
        driver.call('tenants_add', { request_id: randomUUID(), key: `d-${randomUUID()}`, name: 'x' }),
      )
    await subject.sql(lent)
    try {
      expect(await tryIt()).not.toHaveProperty('refused')
      await subject.sql(`update tms.environment set name = 'production' where one`)
      expect(await tryIt()).toHaveProperty('refused.code', 'ENVIRONMENT_DENIED')
    } finally {
      await subject.sql(String(before?.['text']))
      await subject.sql(`update tms.environment set name = 'development' where one`)
    }
  })

  test('the walk fails when the database stops checking', async () => {
    const [before] = await subject.sql(`select pg_get_functiondef('tms._grants(text)'::regprocedure) as text`)
    await subject.sql(`create or replace function tms._grants(operation text)
      returns table (role text, company_id uuid, everywhere boolean, redacted boolean, patterns text[])
      language sql stable security definer as $$ select 'super_admin'::text, null::uuid, true, false, null::text[] $$; select 1`)
    try {
      // The first ones are enough to see it.
      const { wrong } = await as('viewer', (driver) => walk(driver, 'viewer', work, attempts.slice(0, 25)))
      expect(wrong.length).toBeGreaterThan(10)
    } finally {
      await subject.sql(String(before?.['text']))
    }
  })
})

async function opensItsPortals(driver: Driver, role: string): Promise<void> {
  for (const portal of portals) {
    const check = orThrow(
      await driver.call('portals_check', { portal, ...(isTenantRole(role) ? { tenant: 'acme' } : {}) }),
    )
    expect([portal, check.access]).toEqual([portal, portalAccess(role, portal)])
  }
  if (!isTenantRole(role)) return
  for (const portal of portals) {
    expect(orThrow(await driver.call('portals_check', { portal, tenant: 'globex' })).access, portal).toBe('none')
  }
}

/** Work of tenant acme as it would lie about; the personal data in it is Ann's. */
async function makeWork(subject: Subject): Promise<Work> {
  const [made] = await subject.sql(`
    with acme as (
      select id from tms.companies where key = 'acme'
    ), tasks as (
      insert into tms.agent_tasks (company_id, agent, fn_name, status, max_attempts, next_run_at, payload, error)
        select acme.id, x.agent, x.fn, x.status, 3, now(), '{"mail": "ann@acme.example"}', 'ann@acme.example'
          from acme, (values ('walk', 'walk.careful', 'awaiting_approval'), ('finance', 'finance.pay', 'awaiting_approval'),
                             ('walk', 'walk.one', 'quarantined')) x (agent, fn, status)
        returning id, company_id, agent, fn_name
    ), effects as (
      insert into tms.task_effects (task_id, company_id, claim, effects)
        select t.id, t.company_id, 0, '{"effects": {}, "output": "ann@acme.example"}' from tasks t where t.fn_name <> 'walk.one'
    ), runs as (
      insert into tms.agent_runs (task_id, claim, attempt, company_id, agent, fn_name, outcome, error_class, error, started_at, finished_at, ms, epoch)
        select t.id, 0, 1, t.company_id, t.agent, t.fn_name, 'failed', 'bug', 'ann@acme.example', now(), now(), 1, 0 from tasks t
    ), logs as (
      insert into tms.agent_logs (at, company_id, agent, task_id, level, message, fields)
        select now(), t.company_id, t.agent, t.id, 'info', 'ann@acme.example', '{"mail": "ann@acme.example"}' from tasks t
    ), letters as (
      insert into tms.dead_letter_queue (task_id, company_id, agent, fn_name, payload, bytes, error_class, error, attempts)
        select t.id, t.company_id, t.agent, t.fn_name, '{"mail": "ann@acme.example"}', 30, 'bug', 'ann@acme.example', 3
          from tasks t where t.fn_name = 'walk.one'
        returning id
    ), events as (
      insert into tms.outbox_events (company_id, topic, payload) select id, 'walk.x', '{"mail": "ann@acme.example"}' from acme
        returning id, company_id
    ), deliveries as (
      insert into tms.outbox_deliveries (event_id, target, company_id, status, created_at, last_error)
        select e.id, 'walk', e.company_id, 'dead', now(), 'ann@acme.example' from events e returning id
    )
    select (select id::text from tasks where fn_name = 'walk.careful') as careful, (select id::text from tasks where fn_name = 'finance.pay') as payment,
           (select id::text from letters) as letter, (select id::text from deliveries) as delivery`)
  return {
    careful: String(made?.['careful']),
    payment: String(made?.['payment']),
    letter: String(made?.['letter']),
    delivery: String(made?.['delivery']),
  }
}
