import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { contract, type ContractFunction } from '../../src/drivers/contract.ts'
import type { Driver, Refused } from '../../src/drivers/driver.ts'
import { granted as orThrow } from '../../src/drivers/refusal.ts'
import { TmsError } from '../../src/errors.ts'
import { loadCatalogue, parseCatalogue } from '../../src/flags/catalogue.ts'
import { granted, humanRoles, isTenantRole, portalAccess, portals, serviceAccounts, type Reach } from './roles.ts'
import { subjects, type Subject } from './subjects.ts'

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

type Attempt = {
  readonly fn: ContractFunction
  readonly subject?: string
  readonly args: () => Record<string, unknown>
}

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
]

const reaches: readonly Reach[] = ['own tenant', 'other tenant', 'no tenant']

/** Everything the list says of one actor, tried through one driver; the lines where the database says otherwise. */
async function walk(driver: Driver, role: string): Promise<string[]> {
  const wrong: string[] = []
  for (const { fn, subject, args } of attempts) {
    const { operation, args: shape, reads } = contract[fn]
    if (operation === null) throw new Error(`${fn} needs no grant`)
    const takesTenant = 'tenant' in shape.shape
    for (const reach of takesTenant ? reaches : (['no tenant'] as const)) {
      const writes = reads === false
      const tenant = reach === 'own tenant' ? 'acme' : reach === 'other tenant' ? 'globex' : undefined
      const input = {
        ...args(),
        ...(writes ? { request_id: randomUUID() } : {}),
        ...(tenant === undefined ? {} : { tenant }),
        ...(fn === 'flags_set' ? { level: tenant === undefined ? 'global' : 'tenant' } : {}),
      }
      const said = await outcome(driver, fn, input)
      const listed = granted(role, operation, reach, writes, subject) ? 'granted' : 'refused'
      if (said !== listed)
        wrong.push(`${role} ${fn} ${subject ?? ''} ${reach}: the list says ${listed}, the database ${said}`)
    }
  }
  return wrong
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

/** What a refused call must leave as it was; the records of refusals themselves aside. */
const state = `select md5(string_agg(t, '|' order by t)) as sum from (
  select 'c' || x::text from tms.companies x union all select 'p' || x::text from tms.principals x
  union all select 'm' || x::text from tms.memberships x union all select 'l' || x::text from tms.logins x
  union all select 'f' || x::text from tms.feature_flags_v2 x union all select 'h' || x::text from tms.feature_flags_history x
  union all select 'k' || x::text from tms.flag_catalogue x union all select 'e' || x::text from tms.environment x) s (t)`

test('the walk tries every function that needs a grant', () => {
  const functions = Object.keys(contract) as ContractFunction[]
  const needing = functions.filter((fn) => contract[fn].operation !== null)
  expect(new Set(attempts.map(({ fn }) => fn))).toEqual(new Set(needing))
})

describe.each(Object.entries(subjects))('through the %s driver', (_name, start) => {
  let subject: Subject
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
      orThrow(await operator.call(fn, { request_id: randomUUID(), ...args } as never))
    await call('environment_init', {
      environment: 'development',
      override_token_sha256: 'a'.repeat(64),
      signing_key_fingerprint: null,
    })
    await loadCatalogue(operator, catalogue)
    await call('tenants_add', { key: 'acme', name: 'Acme' })
    await call('tenants_add', { key: 'globex', name: 'Globex' })
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
    for (const account of serviceAccounts) credentials.set(account, await subject.account(account))
  }, 120_000)
  afterAll(() => subject.stop())

  const as = async <T>(role: string, work: (driver: Driver) => Promise<T>): Promise<T> => {
    const driver = role === 'super_admin' ? await subject.operator() : await subject.as(credentials.get(role) ?? '')
    try {
      return await work(driver)
    } finally {
      await driver.close()
    }
  }

  test.each([...humanRoles, ...serviceAccounts])('%s may do what roles.yaml grants and nothing else', async (role) => {
    expect(await as(role, (driver) => walk(driver, role))).toEqual([])
  })

  test('a refused call changes nothing', async () => {
    const before = await subject.sql(state)
    await as('viewer', async (driver) => {
      for (const { fn, args } of attempts) {
        if (contract[fn].reads !== false) continue
        const input = { ...args(), request_id: randomUUID(), ...(fn === 'flags_set' ? { level: 'global' } : {}) }
        expect(await outcome(driver, fn, input), fn).toBe('refused')
      }
    })
    expect(await subject.sql(state)).toEqual(before)
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

  test.each(humanRoles)('%s opens the portals of the list', async (role) => {
    await as('super_admin', async (driver) => {
      for (const portal of portals) {
        const check = orThrow(await driver.call('portals_check', { portal, as: role }))
        expect([portal, check.access, check.enabled]).toEqual([portal, portalAccess(role, portal), true])
      }
    })
    await as(role, async (driver) => {
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
    })
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
      const wrong = await as('viewer', (driver) => walk(driver, 'viewer'))
      expect(wrong.length).toBeGreaterThan(10)
    } finally {
      await subject.sql(String(before?.['text']))
    }
  })
})
