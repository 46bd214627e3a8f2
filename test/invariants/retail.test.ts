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
    shop = await openShop(await make())
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

  test('refuses negative stock where it is written, whoever writes it', async () => {
    await shop.sql(`insert into retail.stock values ('a', 1)`)
    await expect(shop.sql(`update retail.stock set quantity = -1`)).rejects.toThrow()
    await expect(shop.sql(`insert into retail.stock values ('b', -1)`)).rejects.toThrow()
    await expect(
      shop.sql(`set local session_replication_role = replica; update retail.stock set quantity = -1`),
    ).rejects.toThrow()
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
      { numRuns: process.env['TMS_TEST_FULL'] === '1' ? 60 : 12 },
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

  test('with more orphans than the bound allows keeps them all, and a person is called', async () => {
    await shop.sql(`insert into retail.sale_items select n, 1000 + n, 'a', 1, 1 from generate_series(1, 101) n`)
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
  readonly invoices: readonly number[]
  readonly movements: readonly number[]
  readonly limits: readonly number[]
  readonly orphans: readonly number[]
}

const intact: Broken = {
  negative: [],
  totals: [],
  payments: [],
  invoices: [],
  movements: [],
  limits: [],
  orphans: [],
}

/** Ten of each; which of them are broken. No more: a sample has ten rows. */
const some = fc
  .uniqueArray(fc.integer({ min: 1, max: 10 }), { maxLength: 4 })
  .map((list) => list.toSorted((a, b) => a - b))
const breakages: fc.Arbitrary<Broken> = fc.record({
  negative: some,
  totals: some,
  payments: some,
  invoices: some,
  movements: some,
  limits: some,
  orphans: some,
})

const list = (ids: readonly number[]) => `(${[-99, ...ids].join(', ')})`

/**
 * Ten articles; ten customers with an open sale each (1 to 10) and a paid one (11 to 20); everything adds up, and then
 * what is named doesn't.
 */
function booksOf(broken: Broken): string {
  return `
    insert into retail.customers select n, 'customer ' || n, 100 from generate_series(1, 10) n;
    insert into retail.stock select 'sku' || n, 10 from generate_series(1, 10) n;
    insert into retail.stock_movements (sku, change, reason)
      select 'sku' || n, 15, 'bought' from generate_series(1, 10) n union all select 'sku' || n, -5, 'sold' from generate_series(1, 10) n;
    insert into retail.sales select n, n, 'open', 100 from generate_series(1, 10) n union all select 10 + n, n, 'paid', 40 from generate_series(1, 10) n;
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
    insert into retail.invoices select 100 + n, 'R-' || n, n from generate_series(1, 10) n where n in ${list(broken.invoices)};
    insert into retail.stock_movements (sku, change, reason) select 'sku' || n, 1, 'found' from generate_series(1, 10) n where n in ${list(broken.movements)};
    update retail.customers set credit_limit = 100 - id where id in ${list(broken.limits)};
    insert into retail.sale_items select 200 + n, 1000 + n, 'sku' || n, 1, 20 from generate_series(1, 10) n where n in ${list(broken.orphans)};
  `
}

function expected(broken: Broken): Record<string, readonly string[]> {
  const named = (ids: readonly number[], name: (id: number) => string) => ids.map(name).toSorted()
  return {
    NO_NEGATIVE_STOCK: named(broken.negative, (n) => `sku${n}`),
    SALE_TOTAL_MATCHES_LINE_ITEMS: named(broken.totals, (n) => String(10 + n)),
    PAYMENT_SUM_MATCHES_SALE_TOTAL: named(broken.payments, (n) => String(10 + n)),
    NO_DUPLICATE_INVOICES: named(broken.invoices, (n) => `R-${n}`),
    STOCK_MOVEMENT_BALANCE: named(broken.movements, (n) => `sku${n}`),
    CREDIT_LIMIT_NOT_EXCEEDED: named(broken.limits, (n) => String(100 - n)),
    NO_ORPHANED_SALE_ITEMS: named(broken.orphans, (n) => String(200 + n)),
  }
}

const keys: Readonly<Record<string, string>> = {
  NO_NEGATIVE_STOCK: 'sku',
  SALE_TOTAL_MATCHES_LINE_ITEMS: 'sale',
  PAYMENT_SUM_MATCHES_SALE_TOTAL: 'sale',
  NO_DUPLICATE_INVOICES: 'number',
  STOCK_MOVEMENT_BALANCE: 'sku',
  CREDIT_LIMIT_NOT_EXCEEDED: 'credit_limit',
  NO_ORPHANED_SALE_ITEMS: 'item',
}

function names(sample: readonly Record<string, unknown>[], invariant: string): readonly string[] {
  return sample.map((row) => String(row[keys[invariant] ?? ''])).toSorted()
}
