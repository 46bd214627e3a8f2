import { randomUUID } from 'node:crypto'
import { createConnection } from 'node:net'
import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { openEmbedded } from '../../src/drivers/embedded/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { signToken } from '../servers/postgrest.ts'
import { postgresSubject, supabaseSubject, type Subject, type SupabaseSubject } from '../contract/subjects.ts'
import { makeEmbedded } from '../servers/schema.ts'

/** A secret that stands in every tenant's data and that no attacker may ever see. */
const planted = `planted-${randomUUID()}`

async function plant(operator: Driver): Promise<void> {
  const call = (fn: 'tenants_add' | 'environment_init' | 'flags_catalogue' | 'flags_set', args: object) =>
    // True because each is written out below; a wrong one throws.
    operator.call(fn, { request_id: randomUUID(), ...args } as never).then(granted)
  await call('environment_init', {
    environment: 'production',
    override_token_sha256: 'a'.repeat(64),
    signing_key_fingerprint: null,
  })
  await call('tenants_add', { key: 'acme', name: planted })
  await call('tenants_add', { key: 'globex', name: planted })
  await call('flags_catalogue', {
    sha256: 'x',
    entries: [{ key: 'ops.text', type: 'string', default: '', safe: '', owner: 'x', expires: null, description: 'x' }],
  })
  for (const tenant of ['acme', 'globex']) {
    await call('flags_set', { key: 'ops.text', level: 'tenant', tenant, value: planted, why: planted })
  }
}

/** What the attacks must leave as it was: everything but the records of refusals and stored answers. */
async function state(subject: Subject): Promise<unknown> {
  return subject.sql(`select md5(string_agg(t, '|' order by t)) as sum from (
    select x::text from tms.companies x union all select x::text from tms.principals x union all select x::text from tms.memberships x
    union all select x::text from tms.logins x union all select x::text from tms.feature_flags_v2 x union all select x::text from tms.gateways x
    union all select x::text from tms.role_operations x union all select x::text from tms.environment x) s (t)`)
}

describe('a hostile worker with its own Postgres login', () => {
  let subject: Subject
  let url: string
  let login: string

  beforeAll(async () => {
    subject = await postgresSubject()
    const operator = await subject.operator()
    await plant(operator)
    await operator.close()
    login = await subject.account('agents')
    // The subject knows the password; a driver opened with it shows the URL works, and the attacks use the same login.
    const driver = await subject.as(login)
    expect(granted(await driver.call('whoami', {})).principal).toBe('agents')
    await driver.close()
    const [row] = await subject.sql(`select current_setting('port') as port, current_database() as name`)
    await subject.sql(`alter role "${login}" password 'attack'; select 1`)
    url = `postgres://${login}:attack@127.0.0.1:${String(row?.['port'])}/${String(row?.['name'])}`
  })
  afterAll(() => subject.stop())

  type Said = { rows?: unknown[]; code?: string }
  const connected = async <T>(work: (say: (...statements: string[]) => Promise<Said>) => Promise<T>): Promise<T> => {
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    try {
      return await work(async (...statements) => {
        try {
          let last: { rows: unknown[] } = { rows: [] }
          for (const statement of statements) last = await client.query(statement)
          return { rows: last.rows }
        } catch (error) {
          if (error instanceof pg.DatabaseError && error.code !== undefined) return { code: error.code }
          throw error
        }
      })
    } finally {
      await client.end()
    }
  }
  /** Runs statements on one connection; gives what the last one said, rows or SQLSTATE. */
  const attack = (...statements: string[]): Promise<Said> => connected((say) => say(...statements))
  /** Each by itself, one after the other on one connection: a thousand connections take half a minute. */
  const attackWithEach = (statements: readonly string[]): Promise<(readonly [statement: string, said: Said])[]> =>
    connected(async (say) => {
      const all = []
      for (const statement of statements) {
        all.push([statement, await say(statement)] as const)
        await say('rollback')
      }
      return all
    })
  const whoami = `select tms.whoami('{}') ->> 'principal' as who`

  test.each([
    [`select set_config('request.jwt.claims', '{"sub":"operator"}', false)`],
    [`set request.jwt.claims = '{"sub":"operator","role":"service_role"}'`],
    [`set request.jwt.claim.sub = 'operator'`],
    [`select set_config('tms.local_user', 'operator', false)`],
    [`select set_config('tms.principal', 'operator', false)`],
    [`set search_path = pg_temp, public, tms`],
    [`create temp table logins (principal_id uuid, kind text, name text); set search_path = pg_temp, tms`],
    [`create temp table memberships as select 'super_admin'::text as role; set search_path = pg_temp, tms`],
    [
      `create function pg_temp.clock_timestamp() returns timestamptz language sql as 'select null::timestamptz'; set search_path = pg_temp, pg_catalog`,
    ],
    [
      `create function pg_temp.current_setting(text, boolean) returns text language sql as $$ select 'operator' $$; set search_path = pg_temp, pg_catalog`,
    ],
    [`set role none`],
  ])('stays who it is after: %s', async (statement) => {
    expect(await attack(statement, whoami)).toEqual({ rows: [{ who: 'agents' }] })
  })

  test.each(['tms_owner', 'tms_identity', 'deployer', 'superuser', 'pg_read_all_data'])(
    'cannot become %s',
    async (role) => {
      expect((await attack(`set role ${role}`)).code).toBe('42501')
      expect((await attack(`set session authorization ${role}`)).code).toBe('42501')
    },
  )

  test('cannot touch a single table, in any way', async () => {
    const tables = await subject.sql(
      `select relname::text as name from pg_class where relnamespace = 'tms'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S')`,
    )
    expect(tables.length).toBeGreaterThan(12)
    for (const { name } of tables) {
      const table = `tms.${String(name)}`
      const statements = [
        `select * from ${table}`,
        `select count(*) from ${table}`,
        `insert into ${table} default values`,
        `delete from ${table}`,
        `truncate ${table}`,
        `copy ${table} to stdout`,
        `begin; lock table ${table} in access exclusive mode`,
        `create temp table stolen (like ${table}); insert into stolen table ${table}`,
        `alter table ${table} disable row level security`,
        `drop table ${table}`,
        `comment on table ${table} is 'x'`,
      ]
      for (const [statement, said] of await attackWithEach(statements)) {
        // 42809: what a sequence answers to a table's statement
        expect(['42501', '42809', '0A000'], `${statement} said ${JSON.stringify(said)}`).toContain(said.code)
      }
    }
  })

  test('cannot use a foreign key to learn which tenants there are', async () => {
    for (const statement of [
      'create temp table probe (id uuid references tms.companies (id))',
      'create temp table probe (id uuid); alter table probe add foreign key (id) references tms.companies (id)',
    ]) {
      expect(['42501', '42P16']).toContain((await attack(statement)).code)
    }
  })

  test('cannot call one function that is not of the contract', async () => {
    const internal = await subject.sql(
      `select p.oid::regprocedure::text as signature, p.pronargs::int as arguments from pg_proc p
        where p.pronamespace = 'tms'::regnamespace and not has_function_privilege('tms_caller', p.oid, 'execute') and p.prorettype <> 'trigger'::regtype`,
    )
    expect(internal.map(({ signature }) => signature)).toContain('tms._bootstrap(text,text,text)')
    const calls = internal.map(({ signature, arguments: count }) => {
      const name = String(signature).split('(')[0]
      const nulls = String(signature)
        .slice(String(signature).indexOf('(') + 1, -1)
        .split(',')
        .slice(0, Number(count))
      return `select ${name}(${Number(count) === 0 ? '' : nulls.map((type) => `null::${type}`).join(', ')})`
    })
    for (const [call, said] of await attackWithEach(calls)) expect(said.code, call).toBe('42501')
  })

  test('cannot put anything into the schema or move what is there', async () => {
    for (const statement of [
      `create function tms.whoami(text) returns text language sql as 'select null'`,
      `create or replace function tms.whoami(args jsonb) returns jsonb language sql as 'select null::jsonb'`,
      `create table tms.mine ()`,
      `alter function tms._grants(text) owner to current_user`,
      `alter schema tms rename to other`,
      `grant tms_owner to current_user`,
      `alter role current_user superuser`,
      `set session_replication_role = replica`,
      `alter default privileges for role tms_owner grant select on tables to public`,
    ]) {
      expect(['42501', '42704'], statement).toContain((await attack(statement)).code)
    }
  })

  test('reads no tenant it holds no task of, and nothing of the plant', async () => {
    for (const fn of [
      'flags_list',
      'flags_get',
      'flags_history',
      'ledger_tail',
      'users_list',
      'tenants_list',
      'accounts_list',
      'doctor',
      'status',
      'flags_verify',
    ]) {
      for (const args of [
        {},
        { tenant: 'acme' },
        { tenant: 'globex' },
        { key: 'ops.text', limit: 100 },
        { tenant: 'acme', key: 'ops.text', limit: 100 },
      ]) {
        const said = await attack(`select tms.${fn}('${JSON.stringify(args)}')`)
        expect(JSON.stringify(said)).not.toContain(planted)
      }
    }
  })

  test('changes nothing with all of it', async () => {
    const before = await state(subject)
    for (const fn of [
      'tenants_add',
      'users_grant',
      'users_revoke',
      'accounts_rotate',
      'flags_set',
      'flags_rollout',
      'flags_catalogue',
      'environment_init',
    ]) {
      const args = {
        request_id: randomUUID(),
        key: 'ops.text',
        name: 'x',
        principal: 'agents',
        role: 'super_admin',
        account: 'agents',
        kind: 'postgres',
        overlap_seconds: 0,
        value: 'x',
        level: 'global',
        why: 'x',
        step: 'off',
        tenant: 'acme',
      }
      await attack(`select tms.${fn}('${JSON.stringify(args)}')`)
      await attack(
        `begin isolation level serializable`,
        `select tms.${fn}('${JSON.stringify({ request_id: randomUUID(), principal: login, role: 'super_admin' })}')`,
        'commit',
      )
    }
    expect(await state(subject)).toEqual(before)
  })

  test('is stopped by each protection alone: with the grants opened, row security still shows nothing', async () => {
    await subject.sql(`grant select on all tables in schema tms to tms_caller; select 1`)
    try {
      expect(await attack('select count(*)::int as n from tms.feature_flags_v2')).toEqual({ rows: [{ n: 0 }] })
      expect(await attack('select count(*)::int as n from tms.companies')).toEqual({ rows: [{ n: 0 }] })
      // and with that off as well the same question is answered: this test can fail
      await subject.sql('alter table tms.companies disable row level security; select 1')
      expect(await attack('select count(*)::int as n from tms.companies')).toEqual({ rows: [{ n: 2 }] })
    } finally {
      await subject.sql(
        `revoke select on all tables in schema tms from tms_caller; alter table tms.companies enable row level security; select 1`,
      )
    }
  })
})

describe('a user with a valid token', () => {
  let subject: SupabaseSubject
  let viewer: string
  let operatorSub: string

  beforeAll(async () => {
    subject = await supabaseSubject()
    const operator = await subject.operator()
    await plant(operator)
    const credential = await subject.credential('viewer')
    viewer = credential.name
    granted(
      await operator.call('users_grant', {
        request_id: randomUUID(),
        principal: 'eve@acme.example',
        role: 'viewer',
        tenant: 'acme',
        credential,
      }),
    )
    await operator.close()
    const [row] = await subject.sql(
      `select l.name from tms.logins l join tms.principals p on p.id = l.principal_id where p.name = 'operator@example.com' and l.kind = 'jwt'`,
    )
    operatorSub = String(row?.['name'])
  })
  afterAll(() => subject.stop())

  const send = async (
    path: string,
    {
      token,
      body = {},
      headers = {},
      method = 'POST',
    }: { token?: string; body?: unknown; headers?: Record<string, string>; method?: string },
  ) => {
    const response = await fetch(`http://127.0.0.1:${subject.postgrest.port}${path}`, {
      method,
      headers: {
        'content-type': 'application/json',
        'content-profile': 'tms',
        'accept-profile': 'tms',
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...headers,
      },
      ...(method === 'GET' ? {} : { body: JSON.stringify(body) }),
    })
    return { status: response.status, text: await response.text() }
  }
  const mine = () => subject.postgrest.tokenFor(viewer)
  const claims = () => ({ role: 'authenticated', sub: operatorSub, exp: Math.floor(Date.now() / 1000) + 3600 })

  test('is who the token says, and an operator token is one: the attacks below start from here', async () => {
    expect((await send('/rpc/whoami', { token: mine(), body: { args: {} } })).text).toContain('eve@acme.example')
    const real = signToken(claims(), { secret: subject.postgrest.secret })
    expect((await send('/rpc/whoami', { token: real, body: { args: {} } })).text).toContain('operator@example.com')
  })

  test('gains nothing from algorithm none, another key, an expired token or a changed one', async () => {
    const real = signToken(claims(), { secret: subject.postgrest.secret })
    const [head = '', , signature = ''] = real.split('.')
    const swapped = [head, mine().split('.')[1], signature].join('.')
    const bad = [
      signToken(claims(), { secret: subject.postgrest.secret, alg: 'none' }),
      signToken(claims(), { secret: 'x'.repeat(43) }),
      signToken({ ...claims(), exp: 1 }, { secret: subject.postgrest.secret }),
      swapped,
      `${head}.${Buffer.from(JSON.stringify(claims())).toString('base64url')}.`,
      'null',
    ]
    for (const token of bad) {
      const said = await send('/rpc/whoami', { token, body: { args: {} } })
      expect(said.status, token).toBe(401)
      expect(said.text).not.toContain('operator@example.com')
    }
  })

  test.each(['tms_owner', 'tms_identity', 'authenticator', 'deployer', 'service_role', 'anon'])(
    'gets no rights from a token for role %s',
    async (role) => {
      const said = await send('/rpc/tenants_list', {
        token: signToken({ role, exp: claims().exp }, { secret: subject.postgrest.secret }),
        body: { args: {} },
      })
      expect(said.status).toBeGreaterThanOrEqual(400)
      expect(said.text).not.toContain(planted)
    },
  )

  test('gets nothing without a token, or with the service key alone', async () => {
    for (const token of [undefined, subject.postgrest.anonKey, subject.postgrest.serviceKey]) {
      const said = await send('/rpc/tenants_list', { ...(token === undefined ? {} : { token }), body: { args: {} } })
      expect(said.status).toBeGreaterThanOrEqual(400)
      expect(said.text).not.toContain(planted)
    }
  })

  test('moves nothing with headers', async () => {
    const headers: Record<string, string>[] = [
      { 'request.jwt.claims': JSON.stringify(claims()) },
      { 'x-jwt-claims': JSON.stringify(claims()), 'x-hasura-role': 'admin', 'x-supabase-role': 'service_role' },
      { prefer: 'tx=rollback, params=single-object' },
      { role: 'tms_owner', 'x-role': 'tms_owner' },
      { cookie: `sb-access-token=${signToken(claims(), { secret: 'x' })}` },
    ]
    for (const extra of headers) {
      const said = await send('/rpc/whoami', { token: mine(), headers: extra, body: { args: {} } })
      expect(said.text).not.toContain('operator@example.com')
    }
    for (const profile of ['pg_catalog', 'public', 'information_schema']) {
      const said = await send('/rpc/set_config', {
        token: mine(),
        headers: { 'content-profile': profile },
        body: { setting_name: 'request.jwt.claims', new_value: '{}', is_local: false },
      })
      expect(said.status).toBeGreaterThanOrEqual(400)
    }
  })

  test('reaches no table and no internal function through the API', async () => {
    const tables = await subject.sql(
      `select relname::text as name from pg_class where relnamespace = 'tms'::regnamespace and relkind in ('r', 'p')`,
    )
    for (const { name } of tables) {
      for (const method of ['GET', 'POST', 'PATCH', 'DELETE']) {
        const said = await send(`/${String(name)}?select=*`, { token: mine(), method })
        expect(said.status, `${method} ${String(name)}`).toBeGreaterThanOrEqual(400)
        expect(said.text).not.toContain(planted)
      }
    }
    const functions = await subject.sql(
      `select distinct proname::text as name from pg_proc where pronamespace = 'tms'::regnamespace and left(proname, 1) = '_'`,
    )
    for (const { name } of functions) {
      expect((await send(`/rpc/${String(name)}`, { token: mine() })).status, String(name)).toBeGreaterThanOrEqual(400)
    }
  })

  test('sees the own tenant only, and changes nothing', async () => {
    const before = await state(subject)
    for (const fn of ['tenants_list', 'users_list', 'ledger_tail', 'accounts_list', 'doctor']) {
      expect((await send(`/rpc/${fn}`, { token: mine(), body: { args: {} } })).text, fn).not.toContain(planted)
    }
    for (const args of [{ tenant: 'globex' }, { tenant: 'globex', key: 'ops.text', limit: 100 }]) {
      for (const fn of ['flags_list', 'flags_get', 'flags_history', 'ledger_tail']) {
        expect((await send(`/rpc/${fn}`, { token: mine(), body: { args } })).text, fn).not.toContain(planted)
      }
    }
    // the own tenant's values are a viewer's to read: the searches above could have found them
    expect(
      (await send('/rpc/flags_get', { token: mine(), body: { args: { tenant: 'acme', key: 'ops.text' } } })).text,
    ).toContain(planted)
    for (const fn of ['tenants_add', 'users_grant', 'flags_set', 'flags_catalogue', 'environment_init']) {
      await send(`/rpc/${fn}`, {
        token: mine(),
        body: {
          args: {
            request_id: randomUUID(),
            tenant: 'acme',
            key: 'ops.text',
            value: 'x',
            level: 'tenant',
            why: 'x',
            principal: 'eve@acme.example',
            role: 'tenant_admin',
            name: 'x',
          },
        },
      })
    }
    expect(await state(subject)).toEqual(before)
  })

  test('could be anybody through a function that runs SQL it is given, and doctor says so', async () => {
    const problems = async () => {
      const operator = await subject.operator()
      const { checks } = granted(await operator.call('doctor', {}))
      await operator.close()
      return checks.find(({ check }) => check === 'dynamic SQL')
    }
    expect((await problems())?.state).toBe('ok')
    for (const [name, body] of [
      ['exec_sql', `language plpgsql as $$ begin execute q; return null; end $$`],
      ['exec_xml', `language sql as $$ select query_to_xml(q, true, true, '')::text $$`],
      ['exec_set', `language sql as $$ select set_config(q, q, true) $$`],
    ] as const) {
      await subject.sql(
        `create schema if not exists api; grant usage on schema api to public; create function api.${name}(q text) returns text ${body}; select 1`,
      )
      const found = await problems()
      expect([found?.state, found?.what], name).toEqual(['problem', expect.stringContaining(name)])
      await subject.sql(`drop function api.${name}(text); select 1`)
    }
  })
})

describe('a process on the embedded socket', () => {
  let folder: string
  let driver: Driver

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tms-forging-'))
    const directory = join(folder, '.tms')
    await makeEmbedded(directory)
    driver = await openEmbedded({ driver: 'embedded', directory, create: false, callTimeoutMs: 20_000 })
    await plant(driver)
  })
  afterAll(async () => {
    await driver.close()
    await rm(folder, { recursive: true, force: true })
  })

  const socketPath = () => {
    const locks = readdirSync(join(folder, '.tms'))
      .filter((name) => /^owner\.\d+\.json$/.test(name))
      .sort()
    const lock = JSON.parse(readFileSync(join(folder, '.tms', locks.at(-1) ?? ''), 'utf8')) as { socket: string }
    return lock.socket.startsWith('/') ? lock.socket : join(folder, '.tms', lock.socket)
  }

  /** Sends one line and gives the first line that comes back, or null when the owner hangs up. */
  const say = (line: string) =>
    new Promise<string | null>((resolve, reject) => {
      const socket = createConnection(socketPath())
      let heard = ''
      socket.setEncoding('utf8')
      socket.on('data', (chunk: string) => {
        heard += chunk
        if (!heard.includes('\n')) return
        resolve(heard.slice(0, heard.indexOf('\n')))
        socket.destroy()
      })
      socket.on('close', () => resolve(null))
      socket.on('error', reject)
      socket.write(`${line}\n`)
    })

  test('speaks call and listen, and nothing else', async () => {
    for (const message of [
      { id: 1, sql: 'drop schema tms cascade' },
      { id: 1, call: '_bootstrap', args: {} },
      { id: 1, call: '_attach_local', args: {} },
      { id: 1, call: `whoami('{}'); drop schema tms cascade; --`, args: {} },
      { id: 1, call: '__proto__', args: {} },
      { id: 1, call: 'constructor', args: {} },
      { id: 1, call: 'whoami', args: {}, as: 'somebody' },
      { id: 1, call: 'whoami', args: {}, localUser: 'somebody' },
      { id: 1, transaction: ['select 1'] },
      { id: 1, listen: `flags; drop schema tms cascade` },
      { id: 1, call: 'whoami', args: `'); drop schema tms cascade; --` },
    ]) {
      const said = await say(JSON.stringify(message))
      expect(said, JSON.stringify(message)).toMatch(/error|problem|INPUT_INVALID|USAGE/i)
      expect(said ?? '').not.toContain(planted)
    }
    expect(granted(await driver.call('tenants_list', {})).tenants).toHaveLength(2)
  })

  test('cannot move who it is through arguments', async () => {
    const said = await say(JSON.stringify({ id: 1, call: 'whoami', args: { principal: 'x', sub: 'x' } }))
    expect(said).toMatch(/no argument/)
  })
})
