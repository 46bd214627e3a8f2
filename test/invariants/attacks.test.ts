import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { granted } from '../../src/drivers/refusal.ts'
import { scanInvariants, showInvariant } from '../../src/invariants/scan.ts'
import { subjects } from '../contract/subjects.ts'
import { openShop, policyText, readPolicies, type Shop } from './shop.ts'

/**
 * What a policy's SQL must not be able to do. First what loading refuses; then what holds when that was got past: a function
 * that a policy may call is replaced after the load, by one that belongs to whoever may do everything.
 */

const spied = policyText(
  'SPIED',
  'select s.sku from retail.stock s where retail.spy()',
  'grants: { read: [retail.stock], functions: [retail.spy] }',
)
const honest = `create or replace function retail.spy() returns boolean language sql stable security definer as $$ select false $$`

describe.each(Object.entries(subjects))('through %s, a query', (name, make) => {
  let shop: Shop

  beforeAll(async () => {
    shop = await openShop(await make())
    await shop.sql(honest)
    await shop.sql(`create table retail.secrets (secret text); insert into retail.secrets values ('hunter2')`)
    await shop.sql(
      `create function retail.writes() returns boolean language plpgsql volatile as $$ begin delete from retail.stock; return true; end $$`,
    )
    await shop.sql(`create function retail.peeks(bigint, bigint) returns boolean language sql stable security definer as 'select exists (select from retail.secrets)';
      create operator retail.### (function = retail.peeks, leftarg = bigint, rightarg = bigint);
      create operator retail.!! (function = pg_try_advisory_lock, rightarg = bigint);
      create domain retail.peeked as int check (retail.peeks(value, 1)); create type retail.peeking as (n retail.peeked)`)
    const { problems } = await shop.load(await readPolicies({ SPIED: spied }))
    expect(problems).toEqual([])
    await shop.sql(`insert into retail.stock values ('a', 1)`)
  })
  afterAll(() => shop.stop())

  const refused: Readonly<Record<string, readonly [query: string, why: RegExp, more?: string]>> = {
    'of a table it was not granted': ['select * from retail.secrets', /permission denied|does not name/],
    'of a table of tms': ['select * from tms.principals', /permission denied/],
    'of passwords': ['select rolpassword from pg_authid', /permission denied/],
    'that calls what comes with Postgres and is volatile': ['select pg_sleep(1)::text', /calls pg_sleep/],
    'that changes settings': [`select set_config('tms.local_user', 'x', false)`, /calls set_config/],
    'that calls a volatile function of ours': [
      'select retail.writes()',
      /volatile/,
      'grants: { read: [retail.stock], functions: [retail.writes] }',
    ],
    'that calls a function nobody granted': ['select retail.writes()', /permission denied|does not name/],
    'that calls one by its operator': [
      'select * from retail.stock where quantity operator(retail.###) 1',
      /calls retail\.peeks.* does not name/,
    ],
    'that calls one as the condition of a domain': [
      'select * from retail.stock where quantity::retail.peeked > 0',
      /calls retail\.peeks.* does not name/,
    ],
    'that calls one as the condition of a domain in a type': [
      `select json_populate_record(null::retail.peeking, '{}')::text`,
      /calls retail\.peeks.* does not name/,
    ],
    'that calls what is volatile by an operator': [
      'select * from retail.stock where operator(retail.!!) 1::bigint',
      /calls pg_try_advisory_lock/,
    ],
    'that calls what is volatile between names with quotes in them': [
      `select 1 as "it's", pg_sleep(1)::text as "isn't"`,
      /calls pg_sleep/,
    ],
    'that deletes in a with': [
      'with gone as (delete from retail.stock returning *) select * from gone',
      /data-modifying/,
    ],
    'that locks rows': ['select * from retail.stock for update', /permission denied|FOR UPDATE/],
    'that runs text': [`select query_to_xml('select 1', true, true, '')`, /calls query_to_xml/],
    'of a table without its schema': ['select * from stock', /does not exist/],
    'that is no SQL': ['select from where', /syntax/],
  }

  test('is refused when it is loaded, and unknown from then on', async () => {
    const files = Object.fromEntries(
      Object.values(refused).map(([query, , more], n) => [`TRIED_${n}`, policyText(`TRIED_${n}`, query, more)]),
    )
    const read = await readPolicies({ ...files, SPIED: spied })
    expect(read.problems).toEqual([])
    if (shop.operator.administration === undefined) {
      // In an SQL console the first one that is wrong undoes the script.
      await expect(shop.load(read)).rejects.toThrow()
    } else {
      const { problems } = await shop.load(read)
      for (const [n, [what, [, why]]] of Object.entries(refused).entries()) {
        const said = problems.filter(({ invariant }) => invariant === `TRIED_${n}`).map(({ message }) => message)
        expect(said, what).toEqual([expect.stringMatching(why)])
      }
      const { checks, drift } = await scanInvariants(shop.operator)
      const tried = checks.filter(({ invariant }) => invariant.startsWith('TRIED_'))
      expect(tried.map(({ outcome }) => outcome)).toEqual(Object.values(refused).map(() => 'unknown'))
      expect(drift.score).toBeNull()
    }
    await shop.load(await readPolicies({ SPIED: spied }))
  })

  test('may use the operator of a function that it was granted, and those of Postgres', async () => {
    const granting = policyText(
      'OPERATED',
      `select s.sku from retail.stock s where s.quantity operator(retail.###) 1 and s.sku ~ '^x' and (s.quantity, 1) < (2, 3)`,
      'grants: { read: [retail.stock], functions: [retail.peeks] }',
    )
    const { problems } = await shop.load(await readPolicies({ SPIED: spied, OPERATED: granting }))
    expect(problems).toEqual([])
    await shop.load(await readPolicies({ SPIED: spied }))
  })

  test('is not built where its role may already do more', async () => {
    if (shop.operator.administration === undefined) return
    await shop.sql('create role tms_invariant_mighty login')
    const { problems } = await shop.load(
      await readPolicies({ SPIED: spied, MIGHTY: policyText('MIGHTY', 'select * from retail.stock') }),
    )
    expect(problems).toMatchObject([{ message: expect.stringContaining('may more than') }])
    await shop.load(await readPolicies({ SPIED: spied }))
  })

  describe('whose function was replaced by a mighty one', () => {
    let before: unknown
    const state = () =>
      shop.sql(`select (select count(*)::int from retail.stock) as stock, (select last_value::text from tms.fence_mark) as mark,
        (select last_value::text from tms.safe_mode_mark) as safe, (select count(*)::int from tms.principals) as principals,
        (select count(*)::int from pg_class where relname = 'planted') as tables`)

    beforeEach(async () => {
      await shop.sql(honest)
      before = await state()
    })

    const attack = async (body: string) => {
      await shop.sql(
        `create or replace function retail.spy() returns boolean language plpgsql volatile security definer as $body$ begin ${body}; return false; end $body$`,
      )
      const { checks } = await scanInvariants(shop.operator, { ids: ['SPIED'] })
      return checks[0]
    }

    test.each([
      ['deletes rows', 'delete from retail.stock'],
      ['moves the fence', `perform setval('tms.fence_mark', 1)`],
      ['ends safe mode', `perform setval('tms.safe_mode_mark', 2)`],
      ['makes a table', 'create table retail.planted ()'],
      ['makes itself an operator', `insert into tms.principals (kind, name) values ('human', 'mallory')`],
      ['asks for a writing transaction first', `set transaction read write; delete from retail.stock`],
      [
        'sets the transaction by function',
        `perform set_config('transaction_read_only', 'off', true); delete from retail.stock`,
      ],
      ['becomes somebody else', 'set role postgres; delete from retail.stock'],
      ['locks the table', 'lock table retail.stock in access exclusive mode; delete from retail.stock'],
      // would look as if it had been done and had found nothing
      ['ends as a check of ours does', `raise exception using errcode = 'TM000'`],
      ['calls an assertion', `assert false`],
    ])('that %s changes nothing and is unknown', async (_, body) => {
      expect(await attack(body)).toMatchObject({ outcome: 'unknown' })
      expect(await state()).toEqual(before)
    })

    test('that changes who the caller is has done so for nobody else', async () => {
      const me = granted(await shop.operator.call('whoami', {})).principal
      await attack(
        `perform set_config('tms.local_user', 'account:autopilot', false); perform set_config('request.jwt.claims', '{"sub": "x"}', false)`,
      )
      expect(granted(await shop.operator.call('whoami', {})).principal).toBe(me)
      const [row] = await shop.sql(
        `select count(*)::int as n from tms.ledger_inbox where fn = 'invariants_scan' and who <> $1`,
        [me],
      )
      expect(row).toEqual({ n: 0 })
    })

    test('that waits is ended by its time limit, and the others are checked', async (context) => {
      if (name === 'embedded') return context.skip('there the call limit ends the engine: a test of its own')
      await shop.load(
        await readPolicies({
          SPIED: spied.replace('timeout: 30s', 'timeout: 1s'),
          WAITED: policyText('WAITED', 'select * from retail.stock where quantity < 0'),
        }),
      )
      await shop.sql(
        `create or replace function retail.spy() returns boolean language plpgsql volatile as $body$ begin perform pg_sleep(4); return false; end $body$`,
      )
      const { checks, drift } = await scanInvariants(shop.operator)
      const why = name === 'postgres' ? /time limit/ : /policy allows 1000/
      expect(checks).toMatchObject([
        { invariant: 'SPIED', outcome: 'unknown', why: expect.stringMatching(why) },
        { invariant: 'WAITED', outcome: 'holds' },
      ])
      expect(drift).toMatchObject({ score: null, lowest: '80.00', highest: '100.00' })
    })
  })

  test('that was changed after it was loaded is not run', async () => {
    await shop.sql(honest)
    await shop.sql(
      `create or replace function tms_invariants.find_spied(most integer) returns setof jsonb language sql stable security definer set search_path = pg_catalog, pg_temp as $$ select '{}'::jsonb where false $$`,
    )
    const { checks } = await scanInvariants(shop.operator, { ids: ['SPIED'] })
    expect(checks).toMatchObject([{ outcome: 'unknown', why: 'its function is not the one that was loaded' }])
    await shop.load(await readPolicies({ SPIED: spied }))
    expect((await scanInvariants(shop.operator, { ids: ['SPIED'] })).checks).toMatchObject([{ outcome: 'holds' }])
  })

  test('sees every row of a table with row security, and is unknown when that begins later', async () => {
    await shop.sql(`create table retail.open (n int); create table retail.hidden (n int);
      alter table retail.hidden enable row level security; insert into retail.open values (-1); insert into retail.hidden values (-1)`)
    if (name === 'postgres') {
      await shop.sql(
        `alter table retail.open owner to ${await owner()}; alter table retail.hidden owner to ${await owner()}`,
      )
    }
    const files = {
      SPIED: spied,
      OPEN_ONE: policyText('OPEN_ONE', 'select n from retail.open where n < 0', 'grants: { read: [retail.open] }'),
      HIDDEN_ONE: policyText(
        'HIDDEN_ONE',
        'select n from retail.hidden where n < 0',
        'grants: { read: [retail.hidden] }',
      ),
    }
    const { problems } = await shop.load(await readPolicies(files))
    expect(problems).toEqual([])
    const ids = ['OPEN_ONE', 'HIDDEN_ONE']
    const outcomes = async () =>
      (await scanInvariants(shop.operator, { ids })).checks.map(
        ({ invariant, outcome }) => `${invariant} ${outcome ?? ''}`,
      )
    expect(await outcomes()).toEqual(['HIDDEN_ONE violated', 'OPEN_ONE violated'])
    await shop.sql('alter table retail.open enable row level security')
    await shop.sql('create policy none on retail.hidden as restrictive using (false)')
    expect(await outcomes()).toEqual(['HIDDEN_ONE unknown', 'OPEN_ONE unknown'])
    await shop.sql('drop table retail.open; drop table retail.hidden')
    expect(await outcomes()).toEqual(['HIDDEN_ONE unknown', 'OPEN_ONE unknown'])
    await shop.load(await readPolicies({ SPIED: spied }))
  })

  const owner = async () =>
    String(
      (
        await shop.sql(`select pg_get_userbyid(relowner) as owner from pg_class where oid = 'retail.stock'::regclass`)
      )[0]?.['owner'],
    )

  test('nobody but tms calls its functions, and no role of a request may', async () => {
    const [row] =
      await shop.sql(`select count(*)::int as n from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
      where p.pronamespace = 'tms_invariants'::regnamespace and a.grantee not in ('tms_owner'::regrole, p.proowner)`)
    expect(row).toEqual({ n: 0 })
    const { checks } = granted(await shop.operator.call('doctor', {}))
    expect(checks.filter(({ check }) => check === 'dynamic SQL')).toMatchObject([{ state: 'ok' }])
  })

  test('with quotes of every kind is run as it is written', async () => {
    const query = String.raw`select '$invariant0$' as a, E'\'' || '''' as b, '\' as "C ;", $$ ; ) ' $$ as d /* ; ) */ -- ' ;`
    const text = policyText('SPIED', query, 'grants: { read: [retail.stock] }\nshow: [a, b, d]')
    const { problems } = await shop.load(await readPolicies({ SPIED: text }))
    expect(problems).toEqual([])
    await scanInvariants(shop.operator, { ids: ['SPIED'] })
    const { sample, query: shown } = await showInvariant(shop.operator, 'SPIED')
    expect(sample).toEqual([
      { a: '$invariant0$', b: `''`, 'C ;': expect.stringMatching(/^digest [0-9a-f]{12}$/) as unknown, d: ` ; ) ' ` },
    ])
    expect(shown?.trim()).toBe(query)
    await shop.load(await readPolicies({ SPIED: spied }))
  })

  test('of an unknown invariant is refused', async () => {
    const answer = await shop.operator.call('invariants_scan', { request_id: randomUUID(), invariant: 'NOBODYS' })
    expect(answer).toHaveProperty('refused.code', 'NOT_FOUND')
  })
})
