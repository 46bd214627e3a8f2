import { randomBytes, randomUUID } from 'node:crypto'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { ContractFunction } from '../../src/drivers/contract.ts'
import { parseCatalogue, loadCatalogue } from '../../src/flags/catalogue.ts'
import { postgresSubject, type Subject } from '../contract/subjects.ts'

/** People of the system itself who try to get more than they were given, or keep what was taken away. */
let subject: Subject
let base: string
const clients: pg.Client[] = []

beforeAll(async () => {
  subject = await postgresSubject()
  const operator = await subject.operator()
  await loadCatalogue(
    operator,
    parseCatalogue(
      'f',
      `flags:
  ops.try: { type: json, default: null, safe: null, owner: x, description: x }
  ops.replayEnabled: { type: boolean, default: false, safe: false, owner: x, description: x }
`,
    ),
  )
  await operator.close()
  const [row] = await subject.sql(`select current_setting('port') as port, current_database() as name`)
  base = `127.0.0.1:${String(row?.['port'])}/${String(row?.['name'])}`
  await call('operator', 'environment_init', {
    environment: 'development',
    override_token_sha256: 'a'.repeat(64),
    signing_key_fingerprint: null,
  })
  for (const key of ['a', 'b']) await call('operator', 'tenants_add', { key, name: key })
})
afterAll(() => subject.stop())
beforeEach(async () => {
  for (const client of clients.splice(0)) await client.end()
})

type Answer = Record<string, unknown> & { refused?: { code: string } }

/** As the super_admin through the driver, or as a login through a connection of its own. */
async function call(who: string, fn: ContractFunction, args: object, on?: pg.Client): Promise<Answer> {
  const write = ['list', 'get', 'history', 'tail', 'whoami', 'check', 'verify', 'status', 'plan'].some((word) =>
    fn.includes(word),
  )
    ? {}
    : { request_id: randomUUID() }
  if (who === 'operator') {
    const driver = await subject.operator()
    try {
      // True because each call is written out in this file, and a wrong one is an error.
      return await driver.call(fn, { ...write, ...args })
    } finally {
      await driver.close()
    }
  }
  const client = on ?? (await connect(who))
  const { rows } = await client.query<{ answer: Answer }>(`select tms.${fn}($1::jsonb) as answer`, [
    JSON.stringify({ ...write, ...args }),
  ])
  return rows[0]?.answer ?? {}
}

async function connect(login: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: `postgres://${login}:x@${base}` })
  await client.connect()
  clients.push(client)
  return client
}

/** A person with a database login and one role. */
async function person(role: string, tenant?: string, extra: object = {}): Promise<string> {
  const login = `p_${randomBytes(4).toString('hex')}`
  await subject.sql(`create role ${login} login password 'x' in role tms_caller`)
  const answer = await call('operator', 'users_grant', {
    principal: `${login}@x`,
    role,
    ...(tenant === undefined ? {} : { tenant }),
    credential: { kind: 'postgres', name: login },
    ...extra,
  })
  expect(answer).not.toHaveProperty('refused')
  return login
}

describe('a transaction that began before its owner was revoked', () => {
  test.each(['repeatable read', 'serializable'])('does nothing at %s', async (level) => {
    const admin = await person('super_admin')
    const client = await connect(admin)
    await client.query(`begin isolation level ${level}`)
    await client.query('select 1 from pg_class limit 1')
    await call('operator', 'users_revoke', { principal: `${admin}@x` })
    await expect(
      call(admin, 'users_grant', { principal: `${admin}@x`, role: 'super_admin' }, client),
    ).rejects.toMatchObject({ code: 'TM400' })
  })

  test('does nothing at read committed either', async () => {
    const admin = await person('super_admin')
    const client = await connect(admin)
    await client.query('begin')
    expect(await call(admin, 'whoami', {}, client)).toHaveProperty('principal')
    await call('operator', 'users_revoke', { principal: `${admin}@x` })
    expect(await call(admin, 'tenants_add', { key: 'late', name: 'late' }, client)).toHaveProperty(
      'refused.code',
      'CREDENTIAL_EXPIRED',
    )
  })
})

describe('the last super_admin', () => {
  test('cannot be revoked, by itself or by two that revoke each other at once', async () => {
    await expect(call('operator', 'users_revoke', { principal: 'operator@example.com' })).rejects.toMatchObject({
      code: 'CONFLICT',
    })
    const [one, two] = [await person('super_admin'), await person('super_admin')]
    const answers = await Promise.allSettled([
      call(one, 'users_revoke', { principal: `${two}@x` }),
      call(two, 'users_revoke', { principal: `${one}@x` }),
    ])
    expect(answers.length).toBe(2)
    expect(await call('operator', 'whoami', {})).toHaveProperty('principal', 'operator@example.com')
  })

  test('cannot be given an end by two that give each other one at once', async () => {
    const soon = new Date(Date.now() + 3_600_000).toISOString()
    const [one, two] = [await person('super_admin'), await person('super_admin')]
    const others = `role = 'super_admin' and revoked_at is null and expires_at is null and principal_id not in (select id from tms.principals where name in ('${one}@x', '${two}@x'))`
    const aside = await subject.sql(
      `update tms.memberships set expires_at = now() + interval '1 day' where ${others} returning id`,
    )
    const [first, second] = [await connect(one), await connect(two)]
    const end = (who: string, whose: string, on: pg.Client) =>
      call(who, 'users_grant', { principal: `${whose}@x`, role: 'super_admin', expires_at: soon }, on)
    await first.query('begin')
    expect(await end(one, two, first)).toHaveProperty('changed', true)
    // the other waits for the first, and is told whom for
    await expect(end(two, one, second)).rejects.toMatchObject({
      code: 'TM409',
      detail: expect.stringContaining(`of "${one}" holds its transaction open`),
    })
    await first.query('commit')
    await expect(end(two, one, second)).rejects.toMatchObject({ code: 'TM409' })
    await subject.sql('update tms.memberships set expires_at = null where id = any ($1)', [aside.map(({ id }) => id)])
  })

  test('cannot be given an end', async () => {
    await subject.sql(
      `update tms.memberships set revoked_at = now() where role = 'super_admin' and principal_id <> (select id from tms.principals where name = 'operator@example.com')`,
    )
    const soon = new Date(Date.now() + 3_600_000).toISOString()
    await expect(
      call('operator', 'users_grant', { principal: 'operator@example.com', role: 'super_admin', expires_at: soon }),
    ).rejects.toMatchObject({ code: 'CONFLICT' })
  })

  test('is no machine: bootstrapping a service account is refused', async () => {
    await subject.sql(`update tms.memberships set revoked_at = now() where role = 'super_admin'`)
    try {
      await expect(subject.sql(`select tms._bootstrap('postgres', 'x', 'ci')`)).rejects.toMatchObject({ code: 'TM400' })
    } finally {
      await subject.sql(
        `update tms.memberships set revoked_at = null where role = 'super_admin' and principal_id = (select id from tms.principals where name = 'operator@example.com')`,
      )
    }
  })
})

describe('a tenant admin', () => {
  test('cannot take a name that another tenant will trust', async () => {
    const [ours, theirs] = [await person('tenant_admin', 'a'), await person('tenant_admin', 'b')]
    const grant = (sub: string) => ({
      principal: 'cfo@b.example',
      role: 'viewer',
      credential: { kind: 'jwt', name: sub },
    })
    expect(await call(ours, 'users_grant', { tenant: 'a', ...grant('attacker') })).toHaveProperty('changed', true)
    expect(
      await call(theirs, 'users_grant', { tenant: 'b', ...grant('the-cfo'), role: 'finance_manager' }),
    ).toHaveProperty('changed', true)
    const [attacker] = await subject.sql(
      `select count(*)::int as n from tms.memberships m join tms.logins l using (principal_id) where l.name = 'attacker' and m.role = 'finance_manager'`,
    )
    expect(attacker).toEqual({ n: 0 })
    // and a super_admin's grant by that name reaches neither of the two
    expect(await call('operator', 'users_grant', { principal: 'cfo@b.example', role: 'developer' })).toHaveProperty(
      'changed',
      true,
    )
    const [reached] = await subject.sql(
      `select count(*)::int as n from tms.memberships m join tms.logins l using (principal_id) where l.name in ('attacker', 'the-cfo') and m.role = 'developer'`,
    )
    expect(reached).toEqual({ n: 0 })
  })

  test('cannot attach a credential to somebody who is there already, or a database login to anybody', async () => {
    const admin = await person('tenant_admin', 'a')
    await call(admin, 'users_grant', { tenant: 'a', principal: 'known@a.example', role: 'viewer' })
    expect(
      await call(admin, 'users_grant', {
        tenant: 'a',
        principal: 'known@a.example',
        role: 'viewer',
        credential: { kind: 'jwt', name: 'mine' },
      }),
    ).toHaveProperty('refused.code', 'ROLE_DENIED')
    expect(
      await call(admin, 'users_grant', {
        tenant: 'a',
        principal: 'new@a.example',
        role: 'viewer',
        credential: { kind: 'postgres', name: 'someone' },
      }),
    ).toHaveProperty('refused.code', 'ROLE_DENIED')
    // a refused call leaves no trace of the person
    expect(await subject.sql(`select count(*)::int as n from tms.principals where name = 'new@a.example'`)).toEqual([
      { n: 0 },
    ])
  })

  test('cannot outlast the end of its own role', async () => {
    const soon = new Date(Date.now() + 3_600_000).toISOString()
    const admin = await person('tenant_admin', 'a', { expires_at: soon })
    expect(await call(admin, 'users_grant', { tenant: 'a', principal: 'puppet', role: 'tenant_admin' })).toHaveProperty(
      'refused.code',
      'ROLE_DENIED',
    )
    expect(
      await call(admin, 'users_grant', {
        tenant: 'a',
        principal: 'puppet',
        role: 'viewer',
        expires_at: new Date(Date.now() + 1_800_000).toISOString(),
      }),
    ).toHaveProperty('changed', true)
  })

  test('cannot block everybody else by holding a transaction open', async () => {
    const admin = await person('tenant_admin', 'a')
    const victim = await person('viewer', 'a')
    const client = await connect(admin)
    await client.query('begin')
    await call(admin, 'users_revoke', { tenant: 'a', principal: `${victim}@x` }, client)
    expect(
      await call('operator', 'users_grant', { principal: 'meanwhile', role: 'viewer', tenant: 'b' }),
    ).toHaveProperty('changed', true)
    expect(await call('operator', 'users_revoke', { principal: `${admin}@x` })).toHaveProperty('changed', true)
    // nor does a super_admin wait for it to take another one away
    const another = await person('super_admin')
    expect(await call('operator', 'users_revoke', { principal: `${another}@x` })).toHaveProperty('changed', true)
    await client.query('rollback')
  })
})

describe('a flag', () => {
  const key = 'ops.try'
  const start = { key, step: 'start', value: 2, canary: ['a'], cohort: { name: 'c', percentage: '25' }, why: 'a test' }
  const consent = `${key}@canary`
  const off = { key, step: 'off', why: 'a test' }
  const unset = { key, level: 'global', unset: true, why: 'a test' }

  test('that somebody sets for one tenant keeps nobody from a lever, a value or a rollout for all by an open transaction', async () => {
    const admin = await person('tenant_admin', 'a')
    await call('operator', 'flags_rollout', { ...start, consent })
    const client = await connect(admin)
    await client.query('begin')
    const mine = { key, level: 'tenant', tenant: 'a', value: 10, why: 'to hold it' }
    expect(await call(admin, 'flags_set', mine, client)).toHaveProperty('changed', true)
    expect(await call('operator', 'incident_soft_degrade', {})).toHaveProperty('incident')
    expect(await call('operator', 'flags_set', { key, level: 'global', value: 40, why: 'a test' })).toHaveProperty(
      'changed',
      true,
    )
    await call('operator', 'flags_set', unset)
    expect(await call('operator', 'flags_rollout', { ...start, consent })).toHaveProperty('stage', 'canary')
    expect(await call('operator', 'flags_rollout', off)).toHaveProperty('stage', 'off')
    await client.query('rollback')
  })

  test('that a tenant has set for itself, and holds, keeps nobody from pausing the replays of all', async () => {
    const admin = await person('tenant_admin', 'b')
    const mine = { key: 'ops.replayEnabled', level: 'tenant', tenant: 'b', value: true, why: 'to hold it' }
    expect(await call(admin, 'flags_set', mine)).toHaveProperty('changed', true)
    const barred = async () => (await call('operator', 'dlq_plan', { tenant: 'b' }))['barred']
    const client = await connect(admin)
    await client.query('begin')
    expect(await call(admin, 'flags_set', { ...mine, value: false }, client)).toHaveProperty('changed', true)
    expect(await call('operator', 'incident_soft_degrade', {})).toHaveProperty('incident')
    await client.query('rollback')
    expect(await barred()).toContain('pauses replays for every tenant')
  })

  test('is rolled out by no machine that gives the consent itself, nor set back by it where nothing is rolled out', async () => {
    const login = `p_${randomBytes(4).toString('hex')}`
    await subject.sql(`create role ${login} login password 'x' in role tms_caller`)
    const rotated = { account: 'autopilot', kind: 'postgres', name: login, overlap_seconds: 0 }
    expect(await call('operator', 'accounts_rotate', rotated)).not.toHaveProperty('refused')
    await call('operator', 'flags_set', { key, level: 'global', value: 41, why: 'a test' })
    await call(login, 'flags_rollout', off)
    expect(await call('operator', 'flags_get', { key })).toMatchObject({ flag: { value: 41 } })
    await call('operator', 'flags_set', unset)
    expect(await call(login, 'flags_rollout', { ...start, consent })).toHaveProperty('refused.code', 'CONSENT_MISSING')
    expect(await call('operator', 'flags_rollout', { ...start, consent })).toHaveProperty('stage', 'canary')
    expect(await call(login, 'flags_rollout', off)).toHaveProperty('stage', 'off')
  })
})

test('a redacted role stays redacted where another role is not: row by row', async () => {
  for (const tenant of ['a', 'b'])
    await call('operator', 'flags_set', { key: 'ops.try', level: 'tenant', tenant, value: 1, why: `why of ${tenant}` })
  const developer = await person('developer')
  await call('operator', 'users_grant', { principal: `${developer}@x`, role: 'viewer', tenant: 'a' })
  const analyst = await person('analyst', 'a')
  await call('operator', 'users_grant', { principal: `${analyst}@x`, role: 'viewer', tenant: 'b' })
  const seen = async (who: string) =>
    JSON.stringify([await call(who, 'flags_history', { limit: 50 }), await call(who, 'flags_get', { key: 'ops.try' })])
  expect(await seen(developer)).toContain('why of a')
  expect(await seen(developer)).not.toContain('why of b')
  expect(await seen(analyst)).toContain('why of b')
  expect(await seen(analyst)).not.toContain('why of a')
  expect(JSON.stringify(await call(developer, 'ledger_tail', { tenant: 'b', limit: 100 }))).not.toMatch(
    /@x|operator|why of/,
  )
})

test("a credential that was revoked with its person works no more, and its name is nobody else's", async () => {
  const gone = await person('viewer', 'a')
  await call('operator', 'users_revoke', { principal: `${gone}@x` })
  expect(await call(gone, 'whoami', {})).toHaveProperty('refused.code', 'CREDENTIAL_EXPIRED')
  expect(
    await call('operator', 'users_grant', {
      principal: 'other',
      role: 'developer',
      credential: { kind: 'postgres', name: gone },
    }),
  ).toHaveProperty('refused.code', 'CONFLICT')
  expect(
    await call('operator', 'users_grant', {
      principal: `${gone}@x`,
      role: 'viewer',
      tenant: 'a',
      credential: { kind: 'postgres', name: gone },
    }),
  ).toHaveProperty('changed', true)
  expect(await call(gone, 'whoami', {})).toHaveProperty('principal', `${gone}@x`)
})

test('a rotated credential retires with the overlap, and none lasts longer than 90 days', async () => {
  const old = await subject.account('dlq')
  const rotate = (extra: object) =>
    call('operator', 'accounts_rotate', {
      account: 'dlq',
      kind: 'postgres',
      name: `dlq_${randomBytes(3).toString('hex')}`,
      ...extra,
    })
  await expect(rotate({})).rejects.toMatchObject({ code: 'INPUT_INVALID' })
  await expect(rotate({ overlap_seconds: 60, kind: 'key' })).rejects.toMatchObject({ code: 'INPUT_INVALID' })
  await rotate({ overlap_seconds: 3600 })
  await subject.sql(`alter role "${old}" password 'x'; select 1`)
  expect(await call(old, 'whoami', {})).toHaveProperty('principal', 'dlq')
  await rotate({ overlap_seconds: 0 })
  expect(await call(old, 'whoami', {})).toHaveProperty('refused.code', 'CREDENTIAL_EXPIRED')
  const [longest] = await subject.sql(
    `select max(l.expires_at - l.created_at) <= interval '90 days 1 minute' as ok from tms.logins l join tms.principals p on p.id = l.principal_id where p.kind = 'service'`,
  )
  expect(longest).toEqual({ ok: true })
})

test('what the list names is denied to everybody it does not name, super_admin included', async () => {
  const [row] = await subject.sql(`select pg_get_functiondef('tms.tenants_list(jsonb)'::regprocedure) as text`)
  await subject.sql(String(row?.['text']).replace(`'tenants.manage'`, `'task.work'`))
  try {
    expect(await call('operator', 'tenants_list', {})).toHaveProperty('refused.code', 'ROLE_DENIED')
  } finally {
    await subject.sql(String(row?.['text']))
  }
})

test("a change of a rollout's plan is on record, and a value that left the catalogue can be taken away", async () => {
  await call('operator', 'flags_set', { key: 'ops.try', level: 'global', unset: true, why: 'clean' })
  const start = { key: 'ops.try', step: 'start', value: 1, canary: ['a'], consent: 'ops.try@canary', why: 'plan' }
  await call('operator', 'flags_rollout', { ...start, cohort: { name: 'early', percentage: '10' }, wait_seconds: 3600 })
  const changed = await call('operator', 'flags_set', {
    key: 'ops.try',
    level: 'global',
    value: 1,
    canary: ['a'],
    why: 'by hand',
  })
  expect(changed).toHaveProperty('changed', true)
  const operator = await subject.operator()
  await loadCatalogue(
    operator,
    parseCatalogue(
      'f',
      'flags:\n  ops.other: { type: boolean, default: false, safe: false, owner: x, description: x }\n',
    ),
  )
  await operator.close()
  expect(
    await call('operator', 'flags_set', { key: 'ops.try', level: 'global', unset: true, why: 'gone' }),
  ).toHaveProperty('changed', true)
})

test('a stored answer is forgotten after its day, swept or not', async () => {
  const args = { request_id: randomUUID(), key: `day-${randomUUID()}`, name: 'x' }
  await call('operator', 'tenants_add', args)
  await subject.sql(`update tms.requests set created_at = now() - interval '25 hours'`)
  expect(await call('operator', 'tenants_add', args)).toHaveProperty('refused.code', 'CONFLICT')
})
