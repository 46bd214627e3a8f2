import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { scanInvariants } from '../../src/invariants/scan.ts'
import { postgresSubject } from '../contract/subjects.ts'
import { until } from '../servers/process.ts'
import { openShop, policyText, readPolicies, readShop, type Shop } from './shop.ts'

/** A million rows, on a server that others use meanwhile. */

let shop: Shop
let second: Driver

beforeAll(async () => {
  shop = await openShop(await postgresSubject())
  second = await shop.subject.operator()
  // Pairs of a million: no index helps, so it would take days.
  const pairs = policyText(
    'PAIRS',
    `select count(*) as pairs from retail.sale_items a join retail.sale_items b on a.price < b.price
     having count(*) = 0`,
    'grants: { read: [retail.sale_items] }',
    '1s',
  )
  const files = await readPolicies({ PAIRS: pairs })
  const whole = await readShop()
  const { problems } = await shop.load({ ...whole, invariants: [...whole.invariants, ...files.invariants] })
  expect(problems).toEqual([])
  await shop.sql(`insert into retail.sales values (1, 1, 'open', 0);
    insert into retail.sale_items select n, 1, 'a', 1 + n % 7, n % 97 from generate_series(1, 1000000) n;
    analyze retail.sale_items`)
}, 180_000)
afterAll(async () => {
  await second.close()
  await shop.stop()
})

/** Writes, one transaction after the other, until the work is done: how many committed meanwhile. */
async function writingWhile<T>(work: Promise<T>): Promise<{ result: T; commits: number }> {
  let commits = 0
  const state = { done: false }
  const ended = work.finally(() => (state.done = true))
  while (!state.done) {
    await shop.sql(`update retail.sale_items set quantity = quantity where id = $1`, [1 + (commits % 1000)])
    commits += 1
  }
  // the last one may have come after the end
  return { result: await ended, commits: commits - 1 }
}

test('a check of a million rows that takes too long is ended by its time limit, and writers go on meanwhile', async () => {
  const { result, commits } = await writingWhile(scanInvariants(shop.operator, { ids: ['PAIRS'] }))
  expect(result.checks).toMatchObject([{ outcome: 'unknown', why: expect.stringContaining('time limit') }])
  expect(commits).toBeGreaterThan(0)
})

test('a check of a million rows holds locks of readers only', async () => {
  let running = true
  const scan = scanInvariants(shop.operator, { ids: ['PAIRS'] }).finally(() => (running = false))
  let modes: unknown[] = []
  await until('the check runs', async () => {
    modes = (
      await shop.sql(
        `select distinct l.mode from pg_locks l where l.relation = 'retail.sale_items'::regclass and l.granted`,
      )
    ).map(({ mode }) => mode)
    return modes.length > 0 || !running
  })
  expect(modes).toEqual(['AccessShareLock'])
  await scan
})

test('each of a million violations is not listed: a thousand are counted, and ten kept', async () => {
  await shop.sql('delete from retail.sales')
  const scan = await scanInvariants(shop.operator, { ids: ['NO_ORPHANED_SALE_ITEMS'], correct: true })
  expect(scan.checks).toMatchObject([
    {
      outcome: 'violated',
      violations: 1000,
      more: true,
      correction: { touched: 0, why: expect.stringContaining('1000') },
    },
  ])
  const [row] = await shop.sql(`select jsonb_array_length(sample) as n from tms.invariant_violations`)
  expect(row).toEqual({ n: 10 })
})

test('of two scans at once one works, and the other says so', async () => {
  const first = scanInvariants(shop.operator, { ids: ['PAIRS'] })
  await until('the check runs', async () => {
    const [row] = await shop.sql(
      `select count(*)::int as n from pg_stat_activity where query like '%invariants_scan%' and state = 'active' and pid <> pg_backend_pid()`,
    )
    return row?.['n'] === 1
  })
  const answer = granted(await second.call('invariants_scan', { request_id: randomUUID(), invariant: 'PAIRS' }))
  expect(answer).toMatchObject({ by: 'another', outcome: null, why: 'another scan is at it' })
  await first
})
