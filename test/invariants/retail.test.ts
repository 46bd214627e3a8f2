import fc from 'fast-check'
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { granted } from '../../src/drivers/refusal.ts'
import { scanInvariants, showInvariant, type Scan } from '../../src/invariants/scan.ts'
import { subjects } from '../contract/subjects.ts'
import { openShop, readShop, type Shop } from './shop.ts'

/** The shop of examples/retail: rows are broken in every way, and exactly that is found. */

describe.each(Object.entries(subjects))('the shop through %s', (_, make) => {
  let shop: Shop

  beforeAll(async () => {
    shop = await openShop(await make(), 'now')
    const { problems, pending, loaded } = await shop.load(await readShop())
    expect([problems, pending]).toEqual([[], []])
    expect(loaded).toHaveLength(7)
  })
  afterAll(() => shop.stop())
  beforeEach(() => shop.empty())

  const outcomes = ({ checks }: Scan) =>
    Object.fromEntries(checks.map(({ invariant, outcome, why }) => [invariant, outcome === 'unknown' ? why : outcome]))

  const lastIncident = async (invariant: string) => {
    const [last] = await shop.sql(
      `select priority, status, attempts, resolution from tms.incidents where dedupe_key = $1 order by id desc limit 1`,
      [`invariant:${invariant}`],
    )
    return last
  }

  test('that is empty holds', async () => {
    const scan = await scanInvariants(shop.operator)
    expect(outcomes(scan)).toEqual(Object.fromEntries(scan.checks.map(({ invariant }) => [invariant, 'holds'])))
    expect(scan.drift).toMatchObject({ score: '100.00', lowest: '100.00', highest: '100.00' })
  })

  test('that was made by an older schema gets what it lacks from this one', async () => {
    await shop.sql(`alter table retail.sale_items drop column arrived_at`)
    await shop.push()
    await shop.sql(`insert into retail.sale_items values (1, 1, 'tea', 1, 1)`)
    expect(await shop.sql(`select arrived_at > now() - interval '1 hour' as new from retail.sale_items`)).toEqual([
      { new: true },
    ])
    expect(outcomes(await scanInvariants(shop.operator))).toMatchObject({ NO_ORPHANED_SALE_ITEMS: 'holds' })
  })

  test('refuses negative stock where it is written, whoever writes it', async () => {
    await shop.sql(`insert into retail.stock values ('a', 1)`)
    await expect(shop.sql(`update retail.stock set quantity = -1`)).rejects.toThrow()
    await expect(shop.sql(`insert into retail.stock values ('b', -1)`)).rejects.toThrow()
    await expect(
      shop.sql(`set local session_replication_role = replica; update retail.stock set quantity = -1`),
    ).rejects.toThrow()
  })

  test('takes an upsert by what it leaves, and refuses one that leaves too little', async () => {
    const upsert = (change: number) =>
      shop.sql(`insert into retail.stock values ('tea', ${change})
        on conflict (sku) do update set quantity = retail.stock.quantity + excluded.quantity`)
    await shop.sql(`insert into retail.stock values ('tea', 10)`)
    await upsert(-3)
    expect(await shop.sql('select quantity::int from retail.stock')).toEqual([{ quantity: 7 }])
    await expect(upsert(-8)).rejects.toThrow('stock of tea would be -1')
    expect(await shop.sql('select quantity::int from retail.stock')).toEqual([{ quantity: 7 }])
  })

  test('refuses negative stock that another trigger makes of it', async () => {
    await shop.sql(`insert into retail.stock values ('tea', 1);
      create function retail.zz_loses() returns trigger language plpgsql as $$ begin new.quantity = new.quantity - 10; return new; end $$;
      create trigger zz_loses before insert or update on retail.stock for each row execute function retail.zz_loses()`)
    try {
      await expect(shop.sql('update retail.stock set quantity = 9')).rejects.toThrow('stock of tea would be -1')
    } finally {
      await shop.sql('drop function retail.zz_loses cascade')
    }
  })

  test('sells its last piece to one of two who buy at once', async () => {
    await shop.sql(`insert into retail.stock values ('tea', 1)`)
    const buy = () => shop.sql('update retail.stock set quantity = quantity - 1; select pg_sleep(0.2)')
    const bought = await Promise.allSettled([buy(), buy()])
    expect(bought.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
    expect(await shop.sql('select quantity::int from retail.stock')).toEqual([{ quantity: 0 }])
  })

  test.each([
    ['limit', (amount: string) => `insert into retail.customers values (1, 'a', ${amount})`],
    ['total', (amount: string) => `insert into retail.sales values (1, 1, 'open', ${amount})`],
    ['price', (amount: string) => `insert into retail.sale_items values (1, 1, 'a', 1, ${amount})`],
    ['payment', (amount: string) => `insert into retail.payments values (1, 1, ${amount})`],
  ])('refuses a %s that is negative or no number', async (_what, insert) => {
    for (const amount of [`'NaN'`, `'Infinity'`, '-0.01']) await expect(shop.sql(insert(amount))).rejects.toThrow()
    await shop.sql(insert('0'))
  })

  test('broken at random shows exactly the violations that were made', async () => {
    await fc.assert(
      fc.asyncProperty(breakages, async (broken) => {
        await shop.empty()
        await shop.sql(booksOf(broken))
        const found: Record<string, unknown> = {}
        for (const invariant of Object.keys(expected(broken))) {
          granted(await shop.operator.call('invariants_scan', { request_id: randomUUID(), invariant }))
          const { outcome, sample } = await showInvariant(shop.operator, invariant)
          found[invariant] = outcome === 'violated' ? names(sample ?? [], invariant) : []
        }
        expect(found).toEqual(expected(broken))
      }),
      { numRuns: process.env['TMS_TEST_FULL'] === '1' ? 60 : 6 },
    )
  }, 240_000)

  test('loses its orphans and nothing else, and the incident is healed', async () => {
    await shop.sql(booksOf({ ...intact, orphans: [1, 3] }))
    const before = await shop.sql(`select count(*)::int as n from retail.sale_items`)
    const scan = await scanInvariants(shop.operator, { ids: ['NO_ORPHANED_SALE_ITEMS'], correct: true })
    expect(scan.checks).toMatchObject([{ outcome: 'holds', correction: { before: 2, touched: 2, after: 0, why: '' } }])
    const after = await shop.sql(`select count(*)::int as n from retail.sale_items`)
    expect(Number(before[0]?.['n']) - Number(after[0]?.['n'])).toBe(2)
    expect(await lastIncident('NO_ORPHANED_SALE_ITEMS')).toEqual({
      priority: 'P3',
      status: 'RESOLVED',
      attempts: 1,
      resolution: 'auto_healed',
    })
    const [row] = await shop.sql(
      `select body::jsonb as body from tms.ledger_inbox where action = 'invariant.corrected' order by id desc`,
    )
    expect(row?.['body']).toMatchObject({ before: 2, touched: 2, allowed: 2, after: 0 })
  })

  test('keeps items that come before their sale', async () => {
    const scan = async () => {
      const { checks } = await scanInvariants(shop.operator, { ids: ['NO_ORPHANED_SALE_ITEMS'], correct: true })
      return checks[0]
    }
    await shop.sql(
      `insert into retail.sale_items values (1, 42, 'tea', 1, 5, default), (2, 99, 'tea', 1, 5, ${twoHoursAgo})`,
    )
    expect(await scan()).toMatchObject({ outcome: 'holds', correction: { before: 1, touched: 1, after: 0 } })
    await shop.sql(`insert into retail.sales values (42, 1, 'open', 5);
      update retail.sale_items set arrived_at = ${twoHoursAgo}`)
    expect(await scan()).toMatchObject({ outcome: 'holds', correction: null })
    expect(await shop.sql('select id::int from retail.sale_items')).toEqual([{ id: 1 }])
  })

  test('with more orphans than the bound allows keeps them all, and a person is called', async () => {
    await shop.sql(
      `insert into retail.sale_items select n, 1000 + n, 'a', 1, 1, ${twoHoursAgo} from generate_series(1, 101) n`,
    )
    const scan = await scanInvariants(shop.operator, { ids: ['NO_ORPHANED_SALE_ITEMS'], correct: true })
    expect(scan.checks).toMatchObject([
      { outcome: 'violated', violations: 101, correction: { touched: 0, allowed: 100, after: 101 } },
    ])
    expect(await shop.sql(`select count(*)::int as n from retail.sale_items`)).toEqual([{ n: 101 }])
    expect(await lastIncident('NO_ORPHANED_SALE_ITEMS')).toMatchObject({ status: 'ESCALATED', attempts: 1 })
    await shop.empty()
    await scanInvariants(shop.operator, { ids: ['NO_ORPHANED_SALE_ITEMS'] })
    expect(await lastIncident('NO_ORPHANED_SALE_ITEMS')).toMatchObject({
      status: 'RESOLVED',
      resolution: 'auto_healed',
    })
  })
})

// ---- the books, and ways to break them

type Broken = {
  readonly negative: readonly number[]
  readonly totals: readonly number[]
  readonly payments: readonly number[]
  /** void sales that were paid for */
  readonly voids: readonly number[]
  /** payments for sales that are not there */
  readonly strays: readonly number[]
  readonly invoices: readonly number[]
  readonly movements: readonly number[]
  readonly limits: readonly number[]
  /** customers over their limit who paid too much for another sale */
  readonly overpaid: readonly number[]
  /** sales to customers who are not there */
  readonly strangers: readonly number[]
  readonly orphans: readonly number[]
  /** items whose sales have not come yet: nothing is wrong with them */
  readonly arriving: readonly number[]
}

const intact: Broken = {
  negative: [],
  totals: [],
  payments: [],
  voids: [],
  strays: [],
  invoices: [],
  movements: [],
  limits: [],
  overpaid: [],
  strangers: [],
  orphans: [],
  arriving: [],
}

/** Ten of each; which of them are broken. No more than nine in one invariant: a sample has ten rows. */
const some = fc
  .uniqueArray(fc.integer({ min: 1, max: 10 }), { maxLength: 3 })
  .map((list) => list.toSorted((a, b) => a - b))
const breakages: fc.Arbitrary<Broken> = fc.record({
  negative: some,
  totals: some,
  payments: some,
  voids: some,
  strays: some,
  invoices: some,
  movements: some,
  limits: some,
  overpaid: some,
  strangers: some,
  orphans: some,
  arriving: some,
})

const twoHoursAgo = `now() - interval '2 hours'`
const list = (ids: readonly number[]) => `(${[-99, ...ids].join(', ')})`

/**
 * Ten articles; ten customers with an open sale each (1 to 10), a paid one (11 to 20) and a void one (21 to 30); everything adds
 * up, and then what is named doesn't.
 */
function booksOf(broken: Broken): string {
  return `
    insert into retail.customers select n, 'customer ' || n, 100 from generate_series(1, 10) n;
    insert into retail.stock select 'sku' || n, 10 from generate_series(1, 10) n;
    insert into retail.stock_movements (sku, change, reason)
      select 'sku' || n, 15, 'bought' from generate_series(1, 10) n union all select 'sku' || n, -5, 'sold' from generate_series(1, 10) n;
    insert into retail.sales select n, n, 'open', 100 from generate_series(1, 10) n union all select 10 + n, n, 'paid', 40 from generate_series(1, 10) n;
    insert into retail.sales select 20 + n, n, 'void', 40 from generate_series(1, 10) n;
    insert into retail.sale_items select n, n, 'sku' || n, 5, 20 from generate_series(1, 10) n union all select 10 + n, 10 + n, 'sku' || n, 2, 20 from generate_series(1, 10) n;
    insert into retail.payments select n, 10 + n, 40 from generate_series(1, 10) n;
    insert into retail.invoices select n, 'R-' || n, n from generate_series(1, 10) n;
    alter table retail.stock disable trigger no_negative_stock;
    update retail.stock set quantity = -1 where replace(sku, 'sku', '')::int in ${list(broken.negative)};
    alter table retail.stock enable always trigger no_negative_stock;
    -- the movements say the same, so that negative stock is all that is wrong with it
    insert into retail.stock_movements (sku, change, reason) select sku, -11, 'sold' from retail.stock where quantity = -1;
    update retail.sale_items set quantity = quantity + 1 where id - 10 in ${list(broken.totals)};
    update retail.payments set amount = amount - 1 where id in ${list(broken.payments)};
    insert into retail.payments select 20 + n, 20 + n, 40 from generate_series(1, 10) n where n in ${list(broken.voids)};
    insert into retail.payments select 1000 + n, 1000 + n, 40 from generate_series(1, 10) n where n in ${list(broken.strays)};
    insert into retail.invoices select 100 + n, 'R-' || n, n from generate_series(1, 10) n where n in ${list(broken.invoices)};
    insert into retail.stock_movements (sku, change, reason) select 'sku' || n, 1, 'found' from generate_series(1, 10) n where n in ${list(broken.movements)};
    update retail.customers set credit_limit = 100 - id where id in ${list([...broken.limits, ...broken.overpaid])};
    insert into retail.sales select 40 + n, n, 'open', 20 from generate_series(1, 10) n where n in ${list(broken.overpaid)};
    insert into retail.sale_items select 40 + n, 40 + n, 'sku' || n, 1, 20 from generate_series(1, 10) n where n in ${list(broken.overpaid)};
    insert into retail.payments select 40 + n, 40 + n, 60 from generate_series(1, 10) n where n in ${list(broken.overpaid)};
    insert into retail.sales select 60 + n, 1000 + n, 'open', 200 + n from generate_series(1, 10) n where n in ${list(broken.strangers)};
    insert into retail.sale_items select 60 + n, 60 + n, 'sku' || n, 1, 200 + n from generate_series(1, 10) n where n in ${list(broken.strangers)};
    insert into retail.sale_items select 200 + n, 1000 + n, 'sku' || n, 1, 20, ${twoHoursAgo} from generate_series(1, 10) n where n in ${list(broken.orphans)};
    insert into retail.sale_items select 300 + n, 2000 + n, 'sku' || n, 1, 20 from generate_series(1, 10) n where n in ${list(broken.arriving)};
  `
}

function expected(broken: Broken): Record<string, readonly string[]> {
  const named = (ids: readonly number[], name: (id: number) => string) => ids.map(name).toSorted()
  return {
    NO_NEGATIVE_STOCK: named(broken.negative, (n) => `sku${n}`),
    SALE_TOTAL_MATCHES_LINE_ITEMS: named(broken.totals, (n) => String(10 + n)),
    PAYMENT_SUM_MATCHES_SALE_TOTAL: [
      ...named(broken.payments, (n) => String(10 + n)),
      ...named(broken.voids, (n) => String(20 + n)),
      ...named(broken.strays, (n) => String(1000 + n)),
    ].toSorted(),
    NO_DUPLICATE_INVOICES: named(broken.invoices, (n) => `R-${n}`),
    STOCK_MOVEMENT_BALANCE: named(broken.movements, (n) => `sku${n}`),
    CREDIT_LIMIT_NOT_EXCEEDED: [
      ...named([...new Set([...broken.limits, ...broken.overpaid])], (n) => `100 of ${100 - n}`),
      ...named(broken.strangers, (n) => `${200 + n} of null`),
    ].toSorted(),
    NO_ORPHANED_SALE_ITEMS: named(broken.orphans, (n) => String(200 + n)),
  }
}

const keys: Readonly<Record<string, (row: Record<string, unknown>) => string>> = {
  NO_NEGATIVE_STOCK: ({ sku }) => String(sku),
  SALE_TOTAL_MATCHES_LINE_ITEMS: ({ sale }) => String(sale),
  PAYMENT_SUM_MATCHES_SALE_TOTAL: ({ sale }) => String(sale),
  NO_DUPLICATE_INVOICES: ({ number }) => String(number),
  STOCK_MOVEMENT_BALANCE: ({ sku }) => String(sku),
  // who it is stays a digest, and nobody's limit is null
  CREDIT_LIMIT_NOT_EXCEEDED: ({ owed, credit_limit }) => `${String(owed)} of ${String(credit_limit)}`,
  NO_ORPHANED_SALE_ITEMS: ({ item }) => String(item),
}

function names(sample: readonly Record<string, unknown>[], invariant: string): readonly string[] {
  return sample.map((row) => keys[invariant]?.(row) ?? '').toSorted()
}
