import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { granted } from '../../src/drivers/refusal.ts'
import { invariantsHistory, listInvariants, scanInvariants, type Scan } from '../../src/invariants/scan.ts'
import { loadInvariants } from '../../src/invariants/load.ts'
import { subjects } from '../contract/subjects.ts'
import { openShop, policyText, readPolicies, readShop, type Shop } from './shop.ts'

/** From violation to healed, and from violation to somebody's telephone, on a clock that the test moves. */

describe.each(Object.entries(subjects))('through %s', (subject, make) => {
  let shop: Shop
  let past = 0

  beforeAll(async () => {
    shop = await openShop(await make())
    granted(
      await shop.operator.call('outbox_targets_set', {
        request_id: randomUUID(),
        targets: [{ name: 'pager', kind: 'webhook', topics: ['incident.*'], config: {} }],
      }),
    )
    await loadAll()
  })
  afterAll(() => shop.stop())
  beforeEach(async () => {
    await shop.empty()
    await at(0)
  })

  const loadAll = async () => {
    const files = await readPolicies({
      SLIPPED: policyText('SLIPPED', 'select s.sku from retail.stock s where s.quantity > 100'),
    })
    const shopFiles = await readShop()
    const { problems } = await shop.load({ ...shopFiles, invariants: [...shopFiles.invariants, ...files.invariants] })
    expect(problems).toEqual([])
  }
  /** Minutes since the test's beginning. */
  const at = async (minutes: number) => {
    // Tests begin an hour apart, so that nothing of one is news in the next.
    if (minutes === 0) past += 60
    await shop.sql(
      `create or replace function tms.now() returns timestamptz language sql stable parallel safe as $$ select '2030-01-01 00:00+00'::timestamptz + interval '${past + minutes} minutes' $$`,
    )
  }
  const scan = (id: string, correct = false) => scanInvariants(shop.operator, { ids: [id], correct })
  const cycle = async () => granted(await shop.operator.call('incident_cycle', { request_id: randomUUID() }))
  const incident = async (key: string) => {
    const [row] = await shop.sql(
      `select i.id::text, status, attempts, resolution from tms.incidents i where dedupe_key = $1 order by i.id desc limit 1`,
      [key],
    )
    return row
  }
  const told = async (id: unknown) =>
    (
      await shop.sql(
        `select topic, payload ->> 'dedup_key' as key from tms.outbox_events where payload ->> 'incident' = $1 order by id`,
        [id],
      )
    ).map(({ topic, key }) => [topic, key])
  const outcome = ({ checks }: Scan) => checks[0]?.outcome

  test('a violation that a correction removes is healed, and everybody who was told is told so', async () => {
    await shop.sql(`insert into retail.sale_items values (1, 99, 'a', 1, 1)`)
    expect(outcome(await scan('NO_ORPHANED_SALE_ITEMS'))).toBe('violated')
    expect(await incident('invariant:NO_ORPHANED_SALE_ITEMS')).toMatchObject({ status: 'OPEN', attempts: 0 })
    await at(5)
    expect(outcome(await scan('NO_ORPHANED_SALE_ITEMS', true))).toBe('holds')
    await cycle()
    const healed = await incident('invariant:NO_ORPHANED_SALE_ITEMS')
    expect(healed).toMatchObject({ status: 'RESOLVED', attempts: 1, resolution: 'auto_healed' })
    const key: unknown = expect.stringMatching(new RegExp(`^tms-[0-9a-f]{8}-incident-${String(healed?.['id'])}$`))
    expect(await told(healed?.['id'])).toEqual([
      ['incident.opened', key],
      ['incident.resolved', key],
    ])
    const { violations } = await invariantsHistory(shop.operator, { invariant: 'NO_ORPHANED_SALE_ITEMS', limit: 1 })
    expect(violations).toMatchObject([{ scans: 2, most: 1, touched: 1, cleared_why: 'corrected' }])
  })

  test('one that nothing but a person can mend is escalated at once', async () => {
    await shop.sql(`insert into retail.invoices values (1, 'R-1', 1), (2, 'R-1', 2)`)
    await scan('NO_DUPLICATE_INVOICES')
    const opened = await incident('invariant:NO_DUPLICATE_INVOICES')
    expect(opened).toMatchObject({ status: 'ESCALATED' })
    const key: unknown = expect.stringMatching(new RegExp(`^tms-[0-9a-f]{8}-incident-${String(opened?.['id'])}$`))
    expect(await told(opened?.['id'])).toEqual([
      ['incident.opened', key],
      ['incident.escalated', key],
    ])
    await at(5)
    await scan('NO_DUPLICATE_INVOICES')
    // joined, and nobody is woken twice
    expect(await told(opened?.['id'])).toHaveLength(2)
    await shop.empty()
    await at(10)
    await scan('NO_DUPLICATE_INVOICES')
    expect(await incident('invariant:NO_DUPLICATE_INVOICES')).toMatchObject({ id: opened?.['id'], status: 'RESOLVED' })
  })

  test('one that may pass by itself is escalated the third time it is seen', async () => {
    await shop.sql(`insert into retail.stock values ('a', 101)`)
    for (const [minutes, status] of [
      [0, 'AUTO_HEALING'],
      [5, 'AUTO_HEALING'],
      [10, 'ESCALATED'],
    ] as const) {
      if (minutes > 0) await at(minutes)
      await scan('SLIPPED')
      await cycle()
      expect(await incident('invariant:SLIPPED')).toMatchObject({ status })
    }
    const [topic] = (await told((await incident('invariant:SLIPPED'))?.['id'])).at(-1) ?? []
    expect(topic).toBe('incident.escalated')
  })

  test('to look again answers nobody: it is late all the same, and whoever acknowledged it is not called again', async () => {
    // ends what the test before has left
    await scan('SLIPPED')
    await shop.sql(`insert into retail.stock values ('a', 101)`)
    await scan('SLIPPED')
    const id = (await incident('invariant:SLIPPED'))?.['id']
    await at(2)
    expect((await cycle()).late).toContain(id)
    granted(await shop.operator.call('incident_work', { request_id: randomUUID(), id: String(id), action: 'ack' }))
    for (const minutes of [5, 10, 20]) {
      await at(minutes)
      await scan('SLIPPED')
      await cycle()
    }
    expect(await incident('invariant:SLIPPED')).toMatchObject({ id, status: 'AUTO_HEALING', attempts: 1 })
  })

  test('a check that gave no answer at all is an incident after a quarter of an hour, too', async () => {
    const missed = async () =>
      granted(
        await shop.operator.call('invariants_score', {
          request_id: randomUUID(),
          missed: [{ invariant: 'SLIPPED', why: 'the connection was lost' }],
        }),
      )
    await scanInvariants(shop.operator)
    await missed()
    expect(await incident('unknown:SLIPPED')).toBeUndefined()
    await at(20)
    await missed()
    expect(await incident('unknown:SLIPPED')).toMatchObject({ status: 'OPEN' })
    await scan('SLIPPED')
    expect(await incident('unknown:SLIPPED')).toMatchObject({ status: 'RESOLVED' })
  })

  test('what somebody’s code says when it fails, which may quote rows, is told to nobody; what the server says is', async () => {
    await shop.sql(`create function retail.odd(sku text) returns boolean language plpgsql stable as $$ begin raise exception 'odd customer Jane Doe of %', sku; end $$;
      create function retail.sure(sku text) returns boolean language plpgsql stable as $$ begin assert false, 'Jane Doe of ' || sku; return true; end $$;
      create function retail.strange(sku text) returns boolean language plpgsql stable as $$ begin raise exception 'Jane Doe' using errcode = '42501'; end $$;
      create function retail.absent(sku text) returns boolean language plpgsql stable as $$ begin return exists (select from retail.nowhere); end $$`)
    await shop.sql(`insert into retail.stock values ('a', 1)`)
    const names = ['odd', 'sure', 'strange', 'absent']
    const files = await readPolicies(
      Object.fromEntries(
        names.map((name) => [
          name.toUpperCase(),
          policyText(
            name.toUpperCase(),
            `select s.sku from retail.stock s where retail.${name}(s.sku)`,
            `grants: { read: [retail.stock], functions: [retail.${name}] }`,
          ),
        ]),
      ),
    )
    expect((await shop.load(files)).problems).toEqual([])
    const { checks } = await scanInvariants(shop.operator, {
      ids: files.invariants.map(({ loaded }) => loaded.invariant),
    })
    const why = Object.fromEntries(checks.map((check) => [check.invariant, check.why]))
    expect(why).toEqual({
      ODD: 'its query failed: code that it calls raised an error (P0001)',
      SURE: 'its query failed: code that it calls raised an error (P0004)',
      STRANGE: 'its query failed: code that it calls raised an error (42501)',
      ABSENT: 'its query failed: relation "retail.nowhere" does not exist (42P01)',
    })
    // takes those four away again
    await loadAll()
    expect(
      await invariantsHistory(shop.operator, { invariant: 'NO_SUCH', limit: 1 }).catch((error: unknown) => error),
    ).toMatchObject({ code: 'NOT_FOUND' })
  })

  test('what cannot be checked is unknown, makes the score a range, and is an incident after a quarter of an hour', async () => {
    await scanInvariants(shop.operator)
    await shop.sql('alter table retail.invoices rename to gone')
    try {
      await at(5)
      const { drift } = await scanInvariants(shop.operator)
      expect(drift).toMatchObject({ score: null, lowest: '60.00', highest: '100.00' })
      expect(await incident('unknown:NO_DUPLICATE_INVOICES')).toBeUndefined()
      await at(21)
      await scan('NO_DUPLICATE_INVOICES')
      expect(await incident('unknown:NO_DUPLICATE_INVOICES')).toMatchObject({ status: 'OPEN' })
    } finally {
      await shop.sql('alter table retail.gone rename to invoices')
    }
    await at(25)
    const { drift } = await scanInvariants(shop.operator)
    expect(drift.score).toBe('100.00')
    expect(await incident('unknown:NO_DUPLICATE_INVOICES')).toMatchObject({ status: 'RESOLVED' })
  })

  test('the score falls with the priority and the number of violations, and a result grows old', async () => {
    await shop.sql(`insert into retail.invoices values (1, 'R-1', 1), (2, 'R-1', 2);
      insert into retail.sale_items select n, 99, 'a', 1, 1 from generate_series(1, 10) n`)
    // half of 40, and three quarters of 8
    expect((await scanInvariants(shop.operator)).drift).toMatchObject({ score: '74.00' })
    await at(11)
    const held = await listInvariants(shop.operator)
    expect(new Set(held.invariants.map((each) => each.outcome))).toEqual(new Set(['unknown']))
    expect(held.drift).toMatchObject({ score: null })
    expect((await scanInvariants(shop.operator, { ids: ['SLIPPED'] })).drift).toMatchObject({ score: null })
  })

  test('a scheduler checks what is due and nothing else', async () => {
    await scanInvariants(shop.operator)
    await at(3)
    expect((await scanInvariants(shop.operator, { due: true })).checks).toEqual([])
    await at(5)
    expect((await scanInvariants(shop.operator, { due: true })).checks).toHaveLength(8)
  })

  test('a violation that was there before is not closed by a check that failed', async () => {
    await shop.sql(`insert into retail.stock values ('a', 101)`)
    await scan('SLIPPED')
    await shop.sql('alter table retail.stock rename to gone')
    try {
      await at(5)
      expect(outcome(await scan('SLIPPED'))).toBe('unknown')
    } finally {
      await shop.sql('alter table retail.gone rename to stock')
    }
    expect(await incident('invariant:SLIPPED')).toMatchObject({ status: 'AUTO_HEALING' })
  })

  test('a policy that failed to load makes the score unknown at once', async () => {
    await scanInvariants(shop.operator)
    expect((await listInvariants(shop.operator)).drift).toMatchObject({ score: '100.00' })
    const broken = await readPolicies({ SLIPPED: 'invariant: SLIPPED' })
    const { kept } = await loadInvariants(shop.operator, broken)
    expect(kept).toContain('NO_NEGATIVE_STOCK')
    expect((await listInvariants(shop.operator)).drift).toMatchObject({ score: null, detail: { unknown: ['SLIPPED'] } })
    const [row] = await shop.sql('select score from tms.drift_scores order by id desc limit 1')
    expect(row).toEqual({ score: null })
  })

  test('what the files name no more stays until it is named, and its open incident says that nobody watches it', async () => {
    await shop.sql(`insert into retail.invoices values (1, 'R-1', 1), (2, 'R-1', 2)`)
    await scan('NO_DUPLICATE_INVOICES')
    const opened = await incident('invariant:NO_DUPLICATE_INVOICES')
    const nothing = await readPolicies({})
    expect((await loadInvariants(shop.operator, nothing)).removed).toEqual([])
    expect(outcome(await scan('NO_DUPLICATE_INVOICES'))).toBe('violated')
    const gone = await loadInvariants(shop.operator, nothing, ['NO_DUPLICATE_INVOICES'])
    expect(gone.removed).toEqual(['NO_DUPLICATE_INVOICES'])
    const events = await shop.sql(`select kind, text from tms.incident_events where incident_id = $1 order by id`, [
      opened?.['id'],
    ])
    expect(events.at(-1)).toMatchObject({ kind: 'unwatched', text: expect.stringContaining('a person resolves it') })
    const { violations } = await invariantsHistory(shop.operator, { invariant: 'NO_DUPLICATE_INVOICES', limit: 1 })
    expect(violations).toMatchObject([{ cleared_why: 'its policy was removed' }])
    await shop.load(await readShop())
  })

  // One process owns the embedded database and is one person there.
  test('whoever may not load is refused in so many words', async (context) => {
    if (subject === 'embedded') return context.skip('one process is one person there')
    const credential = await shop.subject.credential('dev')
    granted(
      await shop.operator.call('users_grant', {
        request_id: randomUUID(),
        principal: 'dev@acme',
        role: 'developer',
        credential,
      }),
    )
    const developer = await shop.subject.as(credential.name)
    try {
      const files = await readPolicies({ ANOTHER: policyText('ANOTHER', 'select 1 from retail.stock') })
      await expect(loadInvariants(developer, files)).rejects.toMatchObject({
        code: 'ROLE_DENIED',
        message: expect.stringContaining('dev@acme') as unknown,
      })
    } finally {
      await developer.close()
    }
  })
})
