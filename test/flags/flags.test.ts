import { createHash, randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Contract } from '../../src/drivers/contract.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { loadCatalogue, parseCatalogue } from '../../src/flags/catalogue.ts'
import { flagHistory, getFlag, setFlag, verifyFlags } from '../../src/flags/flags.ts'
import { planNext, planOff, planStart, rolloutState, takeStep } from '../../src/flags/rollout.ts'
import type { FlagValue } from '../../src/flags/value.ts'
import { rolloutView } from '../../src/flags/views.ts'
import { postgresSubject, type Subject } from '../contract/subjects.ts'

const catalogueText = `flags:
  a.bool: { type: boolean, default: false, safe: false, owner: x, description: x }
  a.text: { type: string, default: 'd', safe: 'd', owner: x, description: x }
  a.pick: { type: string, default: one, safe: one, values: [one, two], owner: x, description: x }
  a.int: { type: integer, default: 1, safe: 0, minimum: '0', maximum: '150', owner: x, description: x }
  a.decimal: { type: decimal, default: '1.50', safe: '0', owner: x, description: x }
  a.json: { type: json, default: null, safe: null, owner: x, description: x }
  a.required: { type: boolean, default: false, safe: false, required: true, owner: x, description: x }
  a.guarded: { type: boolean, default: false, safe: true, owner: x, guarded: true, instead: [tms incident big-red-button], description: x }
`
const catalogue = parseCatalogue('flags.yaml', catalogueText)

let subject: Subject
let db: Driver
const tenants = Array.from({ length: 40 }, (_, i) => `tenant-${i}`)
const ids = new Map<string, string>()

beforeAll(async () => {
  subject = await postgresSubject()
  db = await subject.operator()
  granted(
    await db.call('environment_init', {
      request_id: randomUUID(),
      environment: 'development',
      override_token_sha256: 'a'.repeat(64),
      signing_key_fingerprint: null,
    }),
  )
  for (const key of tenants) {
    const { tenant } = granted(await db.call('tenants_add', { request_id: randomUUID(), key, name: key }))
    ids.set(key, tenant.id)
  }
})
afterAll(async () => {
  await db.close()
  await subject.stop()
})
beforeEach(async () => {
  await loadCatalogue(db, catalogue)
  await subject.sql('delete from tms.feature_flags_v2')
})

const set = (
  key: string,
  text: string | null,
  scope: { tenant?: string; environment?: boolean; percentage?: string; canary?: string[] } = {},
) => setFlag(db, { key, text, environment: false, why: 'a test', ...scope })
const value = async (key: string, tenant?: string) => (await getFlag(db, { key, tenant })).flag.value

describe('what applies', () => {
  test("is the default, then the global value, then the environment's, then the tenant's", async () => {
    expect(await value('a.text', 'tenant-1')).toBe('d')
    await set('a.text', 'global')
    expect(await value('a.text', 'tenant-1')).toBe('global')
    await set('a.text', 'environment', { environment: true })
    expect(await value('a.text', 'tenant-1')).toBe('environment')
    await set('a.text', 'tenant', { tenant: 'tenant-1' })
    expect(await value('a.text', 'tenant-1')).toBe('tenant')
    expect(await value('a.text', 'tenant-2')).toBe('environment')
    expect(await value('a.text')).toBe('environment')
    await set('a.text', null, { environment: true })
    expect(await value('a.text', 'tenant-2')).toBe('global')
    expect(await value('a.text', 'tenant-1')).toBe('tenant')
  })

  test('outside a percentage is the default, whatever the type, and never a narrower guess', async () => {
    await set('a.int', '77', { percentage: '30' })
    for (const tenant of tenants) {
      const inside = bucket('a.int', ids.get(tenant) ?? '') < 3000
      expect([tenant, await value('a.int', tenant)]).toEqual([tenant, inside ? 77 : 1])
    }
    expect(await value('a.int')).toBe(1)
  })

  test('reaches canary tenants whatever the percentage', async () => {
    await set('a.bool', 'true', { percentage: '0', canary: ['tenant-3', 'tenant-4'] })
    const on: string[] = []
    for (const tenant of tenants) if ((await value('a.bool', tenant)) === true) on.push(tenant)
    expect(on).toEqual(['tenant-3', 'tenant-4'])
  })

  test('keeps everybody inside who was inside a smaller percentage', async () => {
    const inside = async (percentage: string) => {
      await set('a.bool', 'true', { percentage })
      const on = await Promise.all(
        tenants.map(async (tenant) => ((await value('a.bool', tenant)) === true ? tenant : null)),
      )
      return new Set(on.filter((tenant) => tenant !== null))
    }
    const [some, more, all] = [await inside('20'), await inside('60'), await inside('100')]
    expect([...some].every((tenant) => more.has(tenant))).toBe(true)
    expect(all.size).toBe(tenants.length)
  })
})

/** The same as in SQL, written from DESIGN: first four bytes of sha256(key:company_id) modulo 10,000. */
function bucket(key: string, id: string): number {
  return createHash('sha256').update(`${key}:${id}`).digest().readUInt32BE(0) % 10_000
}

test('the bucket is the same in SQL and here, and spreads evenly', async () => {
  const pairs = fc.sample(fc.tuple(fc.stringMatching(/^[a-z]{1,8}\.[A-Za-z0-9]{1,8}$/), fc.uuid()), 2000)
  const rows = await subject.sql(
    `select tms._bucket(k, i::uuid) as bucket from unnest($1::text[], $2::text[]) with ordinality t (k, i, n) order by n`,
    [pairs.map(([key]) => key), pairs.map(([, id]) => id)],
  )
  expect(rows.map((row) => row['bucket'])).toEqual(pairs.map(([key, id]) => bucket(key, id)))
  const low = rows.filter((row) => Number(row['bucket']) < 5000).length
  expect(low).toBeGreaterThan(850)
  expect(low).toBeLessThan(1150)
})

describe('a value', () => {
  test.each([
    ['a.bool', 'maybe'],
    ['a.int', '1.5'],
    ['a.int', '151'],
    ['a.int', '-1'],
    ['a.int', '9'.repeat(30)],
    ['a.decimal', '1,5'],
    ['a.decimal', '1e3'],
    ['a.pick', 'three'],
    ['a.json', '{broken'],
    ['a.text', 'x'.repeat(1001)],
    ['a.text', 'x'.repeat(2_000_000)],
    ['a.text', 'nul \0'],
    ['a.text', 'half \ud83d'],
  ])('of %s cannot be the text of case %#', async (key, text) => {
    await expect(set(key, text)).rejects.toMatchObject({ code: 'INPUT_INVALID', exit: 2 })
    expect((await getFlag(db, { key })).overrides).toEqual([])
  })

  test.each(['101', '-1', '1.234', 'half', ''])('cannot apply to %s percent', async (percentage) => {
    await expect(set('a.bool', 'true', { percentage })).rejects.toMatchObject({ exit: 2 })
  })

  test('is checked by the database too, for callers that do not', async () => {
    const bad: Partial<Contract['flags_set']['args']>[] = [
      { key: 'a.int', value: '5' },
      { key: 'a.int', value: 5.5 },
      { key: 'a.decimal', value: 1.5 },
      { key: 'a.bool', value: 1 },
      { key: 'a.json', value: 'x'.repeat(20_000) },
      { key: 'a.bool', value: true, percentage: '100.01' },
      { key: 'a.bool', value: true, level: 'tenant' },
      { key: 'a.bool', value: true, canary: ['nosuch'] },
      { key: 'a.bool', value: true, unset: true },
      { key: 'a.bool' },
    ]
    for (const args of bad) {
      const call = db.call('flags_set', { request_id: randomUUID(), key: 'a.bool', level: 'global', why: 'x', ...args })
      await expect(call, JSON.stringify(args)).rejects.toMatchObject({ code: 'INPUT_INVALID' })
    }
    expect(await subject.sql('select count(*)::int as n from tms.feature_flags_v2')).toEqual([{ n: 0 }])
  })

  test('of a guarded flag is refused with the command that does it', async () => {
    await expect(set('a.guarded', 'true')).rejects.toMatchObject({
      code: 'FLAG_GUARDED',
      exit: 4,
      next: ['tms incident big-red-button'],
    })
  })

  test('of a flag that does not exist names the one that was meant', async () => {
    await expect(set('a.boool', 'true')).rejects.toMatchObject({
      code: 'NOT_FOUND',
      why: expect.stringContaining('a.bool'),
    })
  })
})

describe('the history', () => {
  test('has who, why, before and after of each change, and nothing for what changed nothing', async () => {
    await set('a.int', '5')
    await set('a.int', '5')
    await set('a.int', '6', { percentage: '50' })
    await set('a.int', null)
    const { changes } = await flagHistory(db, { key: 'a.int', limit: 3 })
    expect(changes.map(({ action, before, after }) => [action, before, after])).toEqual([
      ['flag.unset', expect.objectContaining({ value: 6, percentage: '50' }), null],
      ['flag.set', expect.objectContaining({ value: 5, percentage: '100' }), expect.objectContaining({ value: 6 })],
      ['flag.set', null, expect.objectContaining({ value: 5 })],
    ])
    expect(changes[0]).toMatchObject({ who: 'operator@example.com', role: 'super_admin', why: 'a test' })
  })

  test('joins up when many change the same flag at once: each before is the after of the one before it', async () => {
    await Promise.all(Array.from({ length: 20 }, (_, i) => set('a.int', String(i + 10))))
    const { changes } = await flagHistory(db, { key: 'a.int', limit: 20 })
    const inOrder = [...changes].reverse()
    inOrder.slice(1).forEach((change, i) => expect(change.before).toEqual(inOrder[i]?.after))
    expect(await value('a.int')).toEqual((inOrder.at(-1)?.after as { value: number }).value)
  })

  test('has a ledger row for every change, in the same transaction, with digests instead of values', async () => {
    await set('a.text', 'a customer secret')
    const [row] = await subject.sql(
      `select body, body_sha256, xid::text from tms.ledger_inbox where action = 'flag.set' order by id desc limit 1`,
    )
    const [change] = await subject.sql(
      `select xmin::text, after::text from tms.feature_flags_history order by id desc limit 1`,
    )
    expect(String(row?.['body'])).not.toContain('secret')
    expect(String(change?.['after'])).toContain('secret')
    expect(row?.['body_sha256']).toBe(createHash('sha256').update(String(row?.['body'])).digest('hex'))
    expect(BigInt(String(row?.['xid'])) & 0xffffffffn).toBe(BigInt(String(change?.['xmin'])))
  })
})

test('the history of a flag that never was is no empty history; one that left the catalogue keeps its own', async () => {
  await expect(flagHistory(db, { key: 'a.boool', limit: 5 })).rejects.toMatchObject({
    code: 'NOT_FOUND',
    exit: 2,
    why: expect.stringContaining('Did you mean a.bool?'),
  })
  await set('a.text', 'x')
  await subject.sql(`delete from tms.flag_catalogue where key = 'a.text'`)
  expect((await flagHistory(db, { key: 'a.text', limit: 1 })).changes).toHaveLength(1)
  await expect(flagHistory(db, { key: 'a.int', limit: 1 })).resolves.toBeDefined()
})

test('a value nested deeper than clients can read is kept out by the database itself', async () => {
  const put = (levels: number) =>
    db.call('flags_set', {
      request_id: randomUUID(),
      key: 'a.json',
      level: 'global',
      value: JSON.parse('{"a":'.repeat(levels) + '1' + '}'.repeat(levels)) as FlagValue,
      why: 'a test',
    })
  await expect(put(33)).rejects.toMatchObject({ code: 'INPUT_INVALID', message: expect.stringContaining('32 levels') })
  expect(granted(await put(32)).changed).toBe(true)
})

describe('a staged rollout', () => {
  const plan = { value: 'true', canary: ['tenant-1'], cohort: 'early=50', wait: '1h' }
  const step = async (planned: Awaited<ReturnType<typeof planStart>>) => takeStep(db, planned, 'a test')
  /** The body that only tests have: `doctor` reports it. */
  const clock = (offset: string) =>
    subject.sql(
      `create or replace function tms.now() returns timestamptz language sql stable as $$ select pg_catalog.now() + interval '${offset}' $$`,
    )
  const reach = async () => {
    const on = await Promise.all(tenants.map(async (tenant) => (await value('a.bool', tenant)) === true))
    return on.filter(Boolean).length
  }
  beforeEach(() => clock('0'))
  afterAll(() => clock('0'))

  test.each(['early', 'early=', 'early=10=20'])('%s is no cohort', async (cohort) => {
    await expect(planStart(db, 'a.bool', { ...plan, cohort })).rejects.toMatchObject({ code: 'USAGE' })
  })

  test('goes from canary to cohort to all, no faster than its wait, and back at once', async () => {
    await step(await planStart(db, 'a.bool', plan))
    expect(await reach()).toBe(1)
    await expect(step(await planNext(db, 'a.bool'))).rejects.toMatchObject({
      code: 'STAGE_REFUSED',
      why: expect.stringContaining('wait'),
    })
    await clock('61 minutes')
    expect((await step(await planNext(db, 'a.bool'))).stage).toBe('cohort')
    const some = await reach()
    expect(some).toBeGreaterThan(1)
    expect(some).toBeLessThan(tenants.length)
    await expect(step(await planNext(db, 'a.bool'))).rejects.toMatchObject({ code: 'STAGE_REFUSED' })
    await clock('123 minutes')
    expect((await step(await planNext(db, 'a.bool'))).stage).toBe('all')
    expect(await reach()).toBe(tenants.length)
    await expect(step(await planNext(db, 'a.bool'))).rejects.toMatchObject({ code: 'STAGE_REFUSED' })
    expect((await step(planOff('a.bool'))).stage).toBe('off')
    expect(await reach()).toBe(0)
  })

  test('enters no stage of unknown health without consent that names it', async () => {
    const start = await planStart(db, 'a.bool', plan)
    expect(start.consent).toBe('a.bool@canary')
    for (const consent of [null, 'a.bool@all', 'yes']) {
      await expect(takeStep(db, { ...start, consent }, 'a test')).rejects.toMatchObject({
        code: 'CONSENT_MISSING',
        exit: 4,
      })
    }
    expect(await reach()).toBe(0)
  })

  test('goes on without consent on green health, and never on red', async () => {
    const health = (state: string) =>
      subject.sql(
        `create or replace function tms._rollout_health(key text) returns text language sql stable as $$ select '${state}'::text $$`,
      )
    try {
      await health('green')
      await step({ ...(await planStart(db, 'a.bool', plan)), consent: null })
      await clock('2 hours')
      await health('red')
      await expect(step(await planNext(db, 'a.bool'))).rejects.toMatchObject({
        code: 'STAGE_REFUSED',
        why: 'its health is red',
      })
      expect((await step(planOff('a.bool'))).stage).toBe('off')
    } finally {
      await health('unknown')
    }
  })

  test('waits a quarter of an hour at least in production', async () => {
    await subject.sql(`update tms.environment set name = 'production' where one`)
    try {
      await expect(step(await planStart(db, 'a.bool', { ...plan, wait: '60s' }))).rejects.toMatchObject({
        code: 'INPUT_INVALID',
      })
    } finally {
      await subject.sql(`update tms.environment set name = 'development' where one`)
    }
  })

  test('does not start under a value that would hide it, or while another is under way', async () => {
    await set('a.bool', 'false', { environment: true })
    await expect(step(await planStart(db, 'a.bool', plan))).rejects.toMatchObject({ code: 'STAGE_REFUSED' })
    await set('a.bool', null, { environment: true })
    await step(await planStart(db, 'a.bool', plan))
    await expect(step(await planStart(db, 'a.bool', plan))).rejects.toMatchObject({ code: 'STAGE_REFUSED' })
  })

  test('ends when somebody sets the flag by hand', async () => {
    await step(await planStart(db, 'a.bool', plan))
    await set('a.bool', 'false')
    expect((await rolloutState(db, 'a.bool')).since).toBeNull()
  })

  test('does not say that a flag is off which stays on by hand', async () => {
    await set('a.bool', 'true')
    await expect(step(planOff('a.bool'))).rejects.toMatchObject({
      code: 'STAGE_REFUSED',
      next: [expect.stringContaining('tms flags set a.bool --unset')],
    })
    expect(await reach()).toBe(tenants.length)
    await set('a.bool', null)
    expect(await step(planOff('a.bool'))).toMatchObject({ stage: 'off', by_hand: [] })

    await step(await planStart(db, 'a.bool', plan))
    await set('a.bool', 'true', { environment: true })
    await set('a.bool', 'true', { tenant: 'tenant-2' })
    const off = await step(planOff('a.bool'))
    expect(off).toMatchObject({ stage: 'off', by_hand: ['environment development', 'tenant tenant-2'] })
    const shown = JSON.stringify(rolloutView(off))
    expect(shown).toContain('environment development, tenant tenant-2')
    expect(shown).not.toContain('to everybody')
    expect(await step(planOff('a.bool'))).toMatchObject({ stage: 'off' })
  })

  const start = async () => step(await planStart(db, 'a.bool', plan))

  test('over a value that is set by hand is refused where everybody outside the canary would lose it, and says what they have and would have', async () => {
    await set('a.bool', 'true')
    await expect(start()).rejects.toMatchObject({
      code: 'STAGE_REFUSED',
      message: expect.stringContaining('would take the value true from everybody outside the canary'),
      why: expect.stringMatching(/set it by hand.*the default false/),
      next: [expect.stringContaining('tms flags set a.bool --unset'), 'tms flags get a.bool'],
    })
    expect(await reach()).toBe(tenants.length)
    await set('a.bool', null)
    expect(await start()).toMatchObject({ stage: 'canary' })
  })

  test('over a value that only tenants of its canary have goes on', async () => {
    await set('a.bool', 'true', { percentage: '0', canary: ['tenant-1'] })
    expect(await start()).toMatchObject({ stage: 'canary' })
    await step(planOff('a.bool'))
    await set('a.bool', 'true', { percentage: '0', canary: ['tenant-1', 'tenant-2'] })
    await expect(start()).rejects.toMatchObject({ code: 'STAGE_REFUSED' })
    await set('a.bool', null)
  })

  test('over an earlier one is refused where that has reached everybody', async () => {
    await start()
    await subject.sql(
      "update tms.feature_flags_v2 set rollout = 10000 where key = 'a.bool' and level = 'global' returning 1",
    )
    await expect(start()).rejects.toMatchObject({
      code: 'STAGE_REFUSED',
      why: expect.stringContaining('an earlier rollout'),
      next: [expect.stringContaining('tms flags rollout a.bool --off'), 'tms flags get a.bool'],
    })
    await step(planOff('a.bool'))
    expect(await start()).toMatchObject({ stage: 'canary' })
  })

  test('over a text says only that it is one: the ledger keeps refusals', async () => {
    await set('a.text', 'a customer secret')
    const refused = step(await planStart(db, 'a.text', { ...plan, value: 'x' }))
    await expect(refused).rejects.toMatchObject({ message: expect.not.stringContaining('secret') })
  })

  test('over a value that is the default goes on', async () => {
    await set('a.bool', 'false')
    expect(await start()).toMatchObject({ stage: 'canary' })
  })
})

describe('verifying the posture', () => {
  test('finds the environment and every tenant that differs, by name', async () => {
    await set('a.required', 'true')
    expect((await verifyFlags(db)).findings).toEqual([])
    await set('a.required', 'false', { tenant: 'tenant-7' })
    expect((await verifyFlags(db)).findings).toEqual([
      expect.objectContaining({ key: 'a.required', scope: 'tenant tenant-7', observed: false, expected: 'true' }),
    ])
    await set('a.required', 'true', { percentage: '50' })
    const { findings } = await verifyFlags(db)
    expect(findings.some(({ scope }) => scope.startsWith('environment'))).toBe(true)
    expect(findings.length).toBeGreaterThan(5)
  })

  test('finds values that left the catalogue or no longer fit it, and names expired flags', async () => {
    await set('a.required', 'true')
    await set('a.int', '140')
    await set('a.json', '1')
    const changed = parseCatalogue(
      'flags.yaml',
      catalogueText
        .replace(/ {2}a\.json.*\n/, '')
        .replace(`maximum: '150'`, `maximum: '100'`)
        .replace('a.text: {', `a.text: { expires: '2020-01-01',`),
    )
    expect(await loadCatalogue(db, changed)).toEqual({ added: [], changed: ['a.int', 'a.text'], removed: ['a.json'] })
    const verdict = await verifyFlags(db)
    expect(verdict.findings.map(({ key }) => key)).toEqual(['a.int', 'a.json'])
    expect(verdict.expired).toEqual([{ key: 'a.text', expires: '2020-01-01', owner: 'x' }])
  })

  test('refuses a catalogue that contradicts itself, as a whole', async () => {
    const bad = parseCatalogue('flags.yaml', catalogueText.replace(`default: 1, safe: 0`, `default: 151, safe: 0`))
    await expect(loadCatalogue(db, bad)).rejects.toMatchObject({
      code: 'INPUT_INVALID',
      message: expect.stringContaining('a.int'),
    })
    expect((await verifyFlags(db)).catalogue_sha256).toBe(catalogue.sha256)
  })
})

describe('a catalogue file', () => {
  test.each([
    ['flags:\n  a.b: { type: bool, default: 1, safe: 1, owner: x, description: x }\n', /flags\.yaml:2:10: a\.b\.type/],
    ['flags:\n  a.b: { type: boolean, safe: 1, owner: x, description: x }\n', /flags\.yaml:2:\d+: a\.b/],
    ['flags:\n  nodot: { type: boolean, default: 1, safe: 1, owner: x, description: x }\n', /flags\.yaml:2:\d+/],
    [
      'flags:\n  a.b: { type: boolean, default: 1, safe: 1, owner: x, description: x, extra: 1 }\n',
      /flags\.yaml:2:\d+: a\.b\.extra/,
    ],
    ['flags:\n  a.b: {}\n  a.b: {}\n', /flags\.yaml:3:3/],
    ['flags: [unclosed', /flags\.yaml:1:\d+/],
    ['flags: &a { x.y: *a }', /flags\.yaml/],
  ])('that is wrong is named with line and column: %#', (text, said) => {
    expect(() => parseCatalogue('flags.yaml', text)).toThrow(
      expect.objectContaining({ code: 'POLICY_INVALID', message: expect.stringMatching(said) }),
    )
  })
})
