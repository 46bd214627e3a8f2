import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { scanInvariants } from '../../src/invariants/scan.ts'
import { subjects } from '../contract/subjects.ts'
import { password } from '../servers/template.ts'
import { openShop, policyText, readPolicies, readShop, type Shop } from './shop.ts'

/** What a correction may do: what its policy says, within its bounds, while machines may write at all. */

describe.each(Object.entries(subjects))('through %s, a correction', (name, make) => {
  let shop: Shop
  let autopilot: Driver

  const correction = (statement: string, write: string, more = '') =>
    policyText(
      'TIDY',
      'select p.id from retail.parents p where p.id > 100',
      `grants: { read: [retail.parents, retail.children] }
show: [id]
correct:
  statement: ${JSON.stringify(statement)}
  write: [${write}]
  rows_per_scan: 10
  rows_per_violation: 2${more}`,
    )

  beforeAll(async () => {
    shop = await openShop(await make())
    autopilot = await shop.subject.as(await shop.subject.account('autopilot'))
    const [row] = await shop.sql(
      `select pg_get_userbyid(relowner) as owner from pg_class where oid = 'retail.stock'::regclass`,
    )
    const owner = String(row?.['owner'])
    await shop.sql(`
      create table retail.parents (id int primary key, n int);
      create table retail.children (id int, parent int references retail.parents on delete cascade);
      create table retail.notes (who text);
      alter table retail.parents owner to "${owner}"; alter table retail.children owner to "${owner}"; alter table retail.notes owner to "${owner}"`)
    const { problems } = await shop.load(await readShop())
    expect(problems).toEqual([])
  })
  afterAll(async () => {
    await autopilot.close()
    await shop.stop()
  })
  beforeEach(async () => {
    await shop.sql('truncate retail.parents, retail.children, retail.notes')
    await shop.sql('insert into retail.parents values (1), (101), (102)')
  })

  const load = async (text: string) => {
    const read = await readPolicies({ TIDY: text })
    expect(read.problems).toEqual([])
    const { problems } = await shop.load(read)
    expect(problems).toEqual([])
  }
  /** What loading says against it, and where. */
  const refusal = async (text: string) => {
    const read = await readPolicies({ TIDY: text })
    expect(read.problems).toEqual([])
    if (shop.operator.administration === undefined) return shop.load(read).then(String, String)
    const { problems } = await shop.load(read)
    return problems.map(({ line, keys, message }) => `${line} ${keys} ${message}`).join()
  }
  const correct = async (driver = shop.operator) => {
    const { checks } = await scanInvariants(driver, { ids: ['TIDY'], correct: true })
    const [check] = checks
    return check !== undefined && 'correction' in check ? check.correction : undefined
  }
  const parents = async () => (await shop.sql('select id from retail.parents order by id')).map(({ id }) => id)

  test('does what it says', async () => {
    await load(correction('delete from retail.parents where id > 100', 'retail.parents'))
    expect(await correct(autopilot)).toEqual({
      invariant: 'TIDY',
      before: 2,
      touched: 2,
      allowed: 4,
      after: 0,
      why: '',
    })
    expect(await parents()).toEqual([1])
  })

  test('counts its own rows on a guarded table, and not what the guard notes', async () => {
    await load(correction('delete from retail.parents where id > 100', 'retail.parents'))
    await shop.sql(`select tms.guard_table('retail.parents')`)
    try {
      expect(await correct()).toMatchObject({ touched: 2, after: 0 })
    } finally {
      await shop.sql(
        'drop trigger tms_fence on retail.parents; drop trigger tms_fence_truncate on retail.parents; select 1',
      )
    }
  })

  test('is undone when it touches more than its bound, cascades counted', async () => {
    await load(correction('delete from retail.parents where id > 100', 'retail.parents'))
    await shop.sql('insert into retail.children select n, 101 from generate_series(1, 3) n')
    expect(await correct()).toMatchObject({ touched: 0, why: 'it would have touched 5 rows and may touch 4' })
    expect(await parents()).toEqual([1, 101, 102])
    expect(await shop.sql('select count(*)::int as n from retail.children')).toEqual([{ n: 3 }])
  })

  test.each([
    ['truncates', 'truncate retail.notes', 'truncated or altered retail.notes'],
    ['writes and truncates', 'delete from retail.notes; truncate retail.notes', 'truncated or altered retail.notes'],
    ['drops', 'drop table retail.notes', 'dropped retail.notes'],
    ['drops a column of', 'alter table retail.notes drop column who', 'truncated or altered retail.notes'],
  ])('is undone when a trigger of somebody %s a table, whose rows no counter has', async (_what, does, said) => {
    await load(correction('delete from retail.parents where id > 100', 'retail.parents'))
    await shop.sql(`insert into retail.notes select 'n' || n from generate_series(1, 500) n;
      create or replace function retail.wipe() returns trigger language plpgsql security definer as $$ begin ${does}; return null; end $$;
      create trigger wipes after delete on retail.parents for each statement execute function retail.wipe()`)
    try {
      expect(await correct()).toMatchObject({ touched: 0, why: expect.stringContaining(`it would have ${said}`) })
      expect(await shop.sql('select count(who)::int as n from retail.notes')).toEqual([{ n: 500 }])
      expect(await parents()).toEqual([1, 101, 102])
    } finally {
      await shop.sql('drop trigger wipes on retail.parents')
    }
  })

  test('is undone when a trigger of somebody removes large objects beyond its bound', async () => {
    await load(correction('delete from retail.parents where id > 100', 'retail.parents'))
    const objects = () => shop.sql('select count(*)::int as n from pg_largeobject_metadata')
    await shop.sql(`create table retail.objects (o oid); insert into retail.objects select lo_from_bytea(0, 'x') from generate_series(1, 50);
      create function retail.unlinks() returns trigger language plpgsql security definer as $$ begin perform lo_unlink(o) from retail.objects; return null; end $$;
      create trigger unlinks after delete on retail.parents for each statement execute function retail.unlinks()`)
    try {
      // each is a row, and a row for each of its pages
      expect(await correct()).toMatchObject({ touched: 0, why: 'it would have touched 102 rows and may touch 4' })
      expect(await objects()).toEqual([{ n: 50 }])
    } finally {
      await shop.sql('drop trigger unlinks on retail.parents')
    }
  })

  test('is undone when a trigger of somebody writes to a foreign table, whose rows no counter has', async (context) => {
    const [has] = await shop.sql(`select from pg_available_extensions where name = 'postgres_fdw'`)
    if (has === undefined) return context.skip(`the server of ${name} has no postgres_fdw`)
    await load(correction('delete from retail.parents where id > 100', 'retail.parents'))
    await shop.sql(`do $do$ begin
        create extension postgres_fdw;
        execute format('create server itself foreign data wrapper postgres_fdw options (host %L, port %L, dbname %L)', host(inet_server_addr()), inet_server_port(), current_database());
        execute format('create user mapping for current_user server itself options (user %L, password %L)', session_user, '${password}');
      end $do$;
      create table retail.far (id int); insert into retail.far select generate_series(1, 500);
      create foreign table retail.near (id int) server itself options (schema_name 'retail', table_name 'far');
      create function retail.reaches() returns trigger language plpgsql security definer as $$ begin delete from retail.near; return null; end $$;
      create trigger reaches after delete on retail.parents for each statement execute function retail.reaches()`)
    try {
      const written = { touched: 0, why: expect.stringContaining('it would have written to retail.near') as unknown }
      expect(await correct()).toMatchObject(written)
      expect(await shop.sql('select count(*)::int as n from retail.near')).toEqual([{ n: 500 }])
    } finally {
      await shop.sql('drop trigger reaches on retail.parents; drop extension postgres_fdw cascade')
    }
  })

  test('may have a trigger make a table, or undo what it tried on one', async () => {
    await load(correction('delete from retail.parents where id > 100', 'retail.parents'))
    await shop.sql(`create or replace function retail.tries() returns trigger language plpgsql security definer as $$
      begin
        create table retail.made (id int); drop table retail.made;
        begin truncate retail.notes; raise exception 'no'; exception when raise_exception then null; end;
        return null;
      end $$;
      create trigger tries after delete on retail.parents for each statement execute function retail.tries()`)
    try {
      expect(await correct()).toMatchObject({ touched: 2, after: 0 })
    } finally {
      await shop.sql('drop trigger tries on retail.parents')
    }
  })

  test('is undone when it does not help', async () => {
    await load(correction('update retail.parents set id = id + 100 where id > 100', 'retail.parents'))
    expect(await correct()).toMatchObject({ touched: 0, after: 2, why: expect.stringContaining('were left of 2') })
    expect(await parents()).toEqual([1, 101, 102])
  })

  test('writes no other table and reads no other', async () => {
    for (const [statement, why] of [
      ['delete from retail.children', /permission denied for table children/],
      ['delete from retail.notes', /uses retail\.notes, which neither grants\.read nor correct\.write names/],
      ['delete from retail.parents where exists (select from retail.notes)', /uses retail\.notes/],
      ['delete from retail.parents where exists (select from pg_authid)', /permission denied for table pg_authid/],
    ] as const) {
      expect(await refusal(correction(statement, 'retail.parents'))).toMatch(why)
    }
    // granted is what its verb needs, and that alone
    await load(correction('insert into retail.parents select 1 from retail.parents where id = 7', 'retail.parents'))
    const [may] = await shop.sql(`select has_table_privilege('tms_correction_tidy', 'retail.parents', 'delete') as may`)
    expect(may).toEqual({ may: false })
  })

  test('is tried when it is loaded, and what is wrong is told at its statement', async () => {
    const said = await refusal(correction('delete from retail.parents where nosuch = 3', 'retail.parents'))
    expect(said).toContain('column "nosuch" does not exist')
    if (shop.operator.administration !== undefined) expect(said).toMatch(/^11 correct\.statement /)
    expect(await parents()).toEqual([1, 101, 102])
  })

  test('and its query are told at the line of the file where the database finds them wrong', async () => {
    if (shop.operator.administration === undefined) return
    const query = [
      '-- größer 🚚 als nichts',
      'select p.id',
      '  from retail.parents p',
      ` where p.n > 0 and '🚚🚚🚚' <> 'x'`,
      '   and p.nosuch > 100;',
    ]
    const grants = 'grants: { read: [retail.parents] }'
    expect(await refusal(policyText('TIDY', query.join('\n'), grants))).toMatch(/^11 query .*nosuch does not exist/)
    expect(await refusal(policyText('TIDY', ['', '', ...query].join('\n'), grants))).toMatch(/^13 query /)
    expect(await refusal(policyText('TIDY', 'select 1\nfrom where\n', grants))).toMatch(/^8 query .*syntax error/)
    // What is missing at its end, not behind it.
    expect(await refusal(policyText('TIDY', 'select p.id\nfrom retail.parents p\nwhere', grants))).toMatch(/^9 query /)
    // What the database says without a place, and what is written in another way.
    expect(await refusal(policyText('TIDY', 'select *\nfrom\nretail.children', grants))).toMatch(
      /^6 query .*(denied|reads)/,
    )
    const folded = policyText('TIDY', query.join('\n').replace(/^.*\n/, ''), grants).replace('query: |', 'query: >')
    expect(await refusal(folded)).toMatch(/^6 query .*nosuch/)
    const block = correction('', 'retail.parents').replace(
      'statement: ""',
      'statement: |\n    delete from retail.parents\n     where id > 100\n       and nosuch = 3',
    )
    expect(await refusal(block)).toMatch(/^14 correct\.statement .*nosuch/)
  })

  test('may name a column as its function names a variable', async () => {
    await load(correction('delete from retail.parents where id > 100 and n is null', 'retail.parents'))
    expect(await correct()).toMatchObject({ touched: 2, after: 0 })
  })

  test('calls only what it was granted, whatever it is called by', async () => {
    await shop.sql(`create function retail.süß() returns boolean language sql stable as 'select true';
      create function retail.beyond(int, int) returns boolean language sql stable as 'select $1 > $2';
      create operator retail.>>> (function = retail.beyond, leftarg = int, rightarg = int)`)
    for (const [condition, called] of [
      ['id operator(retail.>>>) 100', 'calls retail.beyond'],
      [String.raw`id > 100 and retail.U&"s\00fc\00df"()`, 'calls retail."süß"'],
      ['id > 100 and pg_sleep(0)::text is null', 'calls pg_sleep'],
    ] as const) {
      expect(await refusal(correction(`delete from retail.parents where ${condition}`, 'retail.parents'))).toContain(
        called,
      )
    }
  })

  test('lets no trigger do later, or as somebody else, what it may not do itself', async () => {
    await load(correction('delete from retail.parents where id > 100', 'retail.parents'))
    await shop.sql(`create or replace function retail.note() returns trigger language plpgsql as $$ begin insert into retail.notes values (current_user); return null; end $$;
      create constraint trigger later after delete on retail.parents deferrable initially deferred for each row execute function retail.note()`)
    try {
      expect(await correct()).toMatchObject({
        touched: 0,
        why: expect.stringContaining('permission denied for table notes'),
      })
      expect(await parents()).toEqual([1, 101, 102])
    } finally {
      await shop.sql('drop trigger later on retail.parents')
    }
  })

  test('is not tried while the fleet is halted or in safe mode, by whomever, and says so', async () => {
    await load(correction('delete from retail.parents where id > 100', 'retail.parents'))
    granted(await shop.operator.call('fence_halt', { why: 'the test', grace_ms: 0 }))
    for (const driver of [shop.operator, autopilot]) {
      expect(await correct(driver)).toMatchObject({ touched: 0, why: 'the fleet is halted' })
    }
    for (const step of ['prepare', 'lift'] as const) {
      granted(await shop.operator.call('fence_resume', { request_id: randomUUID(), step, why: 'the test' }))
    }
    granted(await shop.operator.call('safe_mode_on', { why: 'the test' }))
    expect(await correct()).toMatchObject({ touched: 0, why: 'safe mode: nothing is written' })
    granted(
      await shop.operator.call('safe_mode_off', {
        request_id: randomUUID(),
        override_token_sha256: 'ab'.repeat(32),
        why: 'the test',
      }),
    )
    expect(await parents()).toEqual([1, 101, 102])
    const [incident] = await shop.sql(
      `select attempts, status from tms.incidents where dedupe_key = 'invariant:TIDY' order by id desc limit 1`,
    )
    expect(incident).toMatchObject({ status: expect.not.stringMatching('RESOLVED') as unknown })
    expect(await correct(autopilot)).toMatchObject({ touched: 2, after: 0 })
  })

  test('whose function was changed after it was loaded is not run', async () => {
    await load(correction('delete from retail.parents where id > 100', 'retail.parents'))
    await shop.sql(`create or replace function tms_invariants.fix_tidy() returns bigint language plpgsql security definer as
      $$ begin delete from retail.parents; return 1; end $$`)
    expect(await correct()).toMatchObject({ touched: 0, why: 'its function is not the one that was loaded' })
    expect(await parents()).toEqual([1, 101, 102])
  })

  test('of more violations than are listed is left to a person', async () => {
    await load(correction('delete from retail.parents where id > 100', 'retail.parents'))
    await shop.sql('insert into retail.parents select generate_series(1000, 2100)')
    expect(await correct()).toMatchObject({ touched: 0, why: expect.stringContaining('more than 1000') })
  })
})
