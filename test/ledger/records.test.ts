import { afterAll, beforeAll, expect, test } from 'vitest'
import { verifyLedger } from '../../src/ledger/verify.ts'
import { postgresSubject } from '../contract/subjects.ts'
import { readyDesk, type Desk } from '../evidence/desk.ts'

/** What a superuser can do to stored packs behind the product's back, and that the ledger's rows show it. */

let desk: Desk
const tables = ['evidence_packs', 'evidence_cuts'] as const

beforeAll(async () => {
  desk = await readyDesk(await postgresSubject())
  await desk.sql(`update tms.environment set initialised_at = now() - interval '3 days'`)
  await desk.build({ day: 'yesterday' })
  await desk.build()
})
afterAll(async () => desk.stop())

const places = async () =>
  (await verifyLedger(desk.driver, {})).findings.map(
    ({ place, what }) => `${place.replace(/\d{4}-\d\d-\d\d/, 'DAY')}: ${what}`,
  )
const final = `(select day from tms.evidence_packs where final)`

test('packs that nobody touched fit', async () => {
  expect(await places()).toEqual([])
})

test.each([
  [
    'verdict',
    `update tms.evidence_packs set verdict = 'green' where final`,
    ['pack of DAY/1: its verdict is not the one that was stored'],
  ],
  [
    'digest',
    `update tms.evidence_packs set manifest_sha256 = repeat('0', 64) where final`,
    ['pack of DAY/1: it does not fit the facts that were frozen for it'],
  ],
  [
    'time',
    `update tms.evidence_packs set as_of = as_of + interval '1 second' where not final`,
    ['pack of DAY/1: it does not fit the facts that were frozen for it'],
  ],
  [
    'file',
    `update tms.evidence_packs set files = files || '{"flags.json": "{}"}' where final`,
    ['pack of DAY/1: its files are not the ones that were stored'],
  ],
  ['absence', `delete from tms.evidence_packs where final`, ['pack of DAY/1: it was stored, and is gone']],
  [
    'twin',
    `insert into tms.evidence_packs select day, 7, final, as_of, from_seq, tree_size, verdict, manifest_sha256, sums_sha256, files, signature from tms.evidence_packs where not final`,
    ['evidence.pack: 1 more are kept than rows speak of'],
  ],
  [
    'cut',
    `update tms.evidence_cuts set verdict = 'green' where day = ${final}`,
    ['facts of DAY/1: what is said of them is not what their manifest says'],
  ],
  [
    'manifest',
    `update tms.evidence_cuts set manifest = manifest || ' ' where day = ${final}`,
    ['facts of DAY/1: they are not the ones that were frozen'],
  ],
])('another %s of a stored pack is found', async (_, change, expected) => {
  const guard = (what: string) =>
    tables.map((table) => `alter table tms.${table} ${what} trigger append_only;`).join(' ')
  await desk.sql(`begin; create schema kept; ${tables.map((table) => `create table kept.${table} as table tms.${table};`).join(' ')}
    ${guard('disable')} ${change}; ${guard('enable always')} commit`)
  const found = await places()
  await desk.sql(`begin; ${guard('disable')} ${tables.map((table) => `delete from tms.${table}; insert into tms.${table} select * from kept.${table};`).join(' ')}
    ${guard('enable always')} drop schema kept cascade; commit`)
  expect(found).toEqual(expected)
})
