import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { granted } from '../../src/drivers/refusal.ts'
import { makeLedgerCheckpoint } from '../../src/ledger/checkpoint.ts'
import { sealLedger } from '../../src/ledger/ledger.ts'
import { verificationUnknown, verifyLedger } from '../../src/ledger/verify.ts'
import { postgresSubject } from '../contract/subjects.ts'
import { openBook, type Book } from './book.ts'

/** What a superuser can do to the ledger behind the product's back, and that it is seen. */

let book: Book
let folder: string
let checkpoint: string

beforeAll(async () => {
  book = await openBook(await postgresSubject())
  folder = await mkdtemp(join(tmpdir(), 'tms-ledger-attacks-'))
  await book.record(60)
  checkpoint = (await makeLedgerCheckpoint(book.operator, book.signer)).note
  await book.record(20)
  await sealLedger(book.operator)
  // each attack begins with this ledger
  for (const table of tables) await book.sql(`create table public.kept_${table} as table tms.${table}`)
})
afterAll(async () => {
  await book.stop()
  await rm(folder, { recursive: true, force: true })
})

const tables = [
  'ledger_witnesses',
  'ledger_checkpoints',
  'ledger',
  'ledger_nodes',
  'ledger_inbox',
  'ledger_sealer',
] as const

beforeEach(async () => {
  await attack(`truncate ${tables.map((table) => `tms.${table}`).join(', ')}`)
  for (const table of [...tables].reverse()) {
    await attack(`insert into tms.${table} overriding system value select * from public.kept_${table}`)
  }
})

/** As a superuser who takes the triggers away first and puts them back. */
async function attack(...statements: string[]): Promise<void> {
  const guarded = ['ledger', 'ledger_nodes', 'ledger_checkpoints', 'ledger_witnesses', 'ledger_inbox']
  const each = (what: string) =>
    guarded.map((table) => `alter table tms.${table} ${what} trigger append_only;`).join('')
  await book.sql(`begin; ${each('disable')} ${statements.join(';')}; ${each('enable always')} commit`)
}

/** With the table of keys changed for a while. */
async function withKeys<T>(change: string, look: () => Promise<T>): Promise<T> {
  await book.sql(`create table public.kept_keys as table tms.signing_keys`)
  await book.sql(change)
  const seen = await look()
  await book.sql(
    `delete from tms.signing_keys; insert into tms.signing_keys select * from public.kept_keys; drop table public.kept_keys`,
  )
  return seen
}

const judge = (outside: { checkpoint?: string } = {}) => verifyLedger(book.operator, { ...outside, key: book.signer })
const places = async (outside: { checkpoint?: string } = {}) =>
  (await judge(outside)).findings.map(({ place, what }) => `${place}: ${what}`)

/** Recomputes every hash, leaf and node from what the inbox says now: everything that no key is needed for. */
const rewriteAll = `
  do $$
  declare
    s tms.ledger_sealer;
    r record;
    prev text := repeat('0', 64);
    line bytea;
  begin
    delete from tms.ledger_nodes;
    for r in select l.seq, i.* from tms.ledger l join tms.ledger_inbox i on i.id = l.inbox_id order by l.seq loop
      line := convert_to(tms._ledger_line(r.seq, prev, tms._ledger_rest(r.id, r.at, r.who, r.credential, r.role, r.fn, r.action, r.outcome, r.company_id, r.subject, r.why, r.trace_id, r.body_sha256)), 'UTF8');
      update tms.ledger set prev_hash = prev, row_hash = encode(sha256(line), 'hex'), leaf = sha256('\\x00'::bytea || line) where seq = r.seq;
      prev := encode(sha256(line), 'hex');
    end loop;
    insert into tms.ledger_nodes select * from tms._tree_grow(0, array(select leaf from tms.ledger order by seq));
  end $$`

test('before any attack everything fits', async () => {
  expect(await judge({ checkpoint })).toMatchObject({ verdict: 'verified', findings: [] })
})

test.each([
  ['reason', `update tms.ledger_inbox set why = 'because' where id = 30`],
  ['outcome', `update tms.ledger_inbox set outcome = 'refused' where id = 30`],
  ['subject', `update tms.ledger_inbox set subject = 'x' where id = 30`],
  ['time', `update tms.ledger_inbox set at = at - interval '1 microsecond' where id = 30`],
  ['tenant', `update tms.ledger_inbox set company_id = gen_random_uuid() where id = 30`],
])('another %s in an old row is found at its place', async (_, change) => {
  await attack(change)
  expect(await places()).toEqual(['row 29: it says something else than when it was sealed'])
})

test('another body is found, with its hash changed too and without', async () => {
  await attack(`update tms.ledger_inbox set body = '{}' where id = 30`)
  expect(await places()).toEqual(['row 29: its body is not the one that was hashed'])
  await attack(`update tms.ledger_inbox set body_sha256 = encode(sha256('{}'), 'hex') where id = 30`)
  expect(await places()).toEqual(['row 29: it says something else than when it was sealed'])
})

test('a row that is gone is found, from the inbox and from the sealed ledger', async () => {
  await attack(`delete from tms.ledger_inbox where id = 30`)
  expect(await places()).toEqual(['row 29: sealed, and gone from the inbox'])
  await attack(`delete from tms.ledger where seq = 29`)
  expect(await places()).toContain('row 29: missing in the sealed ledger')
})

test('the end cut off behind the sealer is found, and it seals nothing over it', async () => {
  await attack(`delete from tms.ledger where seq >= 70`)
  const found = await places()
  expect(found).toContainEqual(expect.stringMatching(/^rows 70-\d+: sealed, and cut off the end of the ledger/))
  expect(found).toContainEqual(expect.stringMatching(/^tree: \d+ subtrees reach beyond the last row/))
  // Said by each try, and one incident.
  for (let tries = 0; tries < 2; tries += 1)
    expect(await book.operator.call('ledger_seal', {})).toHaveProperty('refused.code', 'CONFLICT')
  const { incidents } = granted(await book.operator.call('incident_list', {}))
  expect(incidents).toMatchObject([{ type: 'ledger_broken', priority: 'P1', status: 'OPEN' }])
})

test('the end cut off everywhere is found by the checkpoint that was stored, and by one from outside', async () => {
  await attack(
    `delete from tms.ledger where seq >= 50`,
    `delete from tms.ledger_inbox i where not exists (select from tms.ledger l where l.inbox_id = i.id)`,
    `delete from tms.ledger_nodes where (index + 1) << level > 50`,
    `update tms.ledger_sealer set size = 50`,
  )
  expect(await places()).toEqual([
    expect.stringMatching(/^stored checkpoint of \d+ rows: the end was cut off/),
    'ledger.checkpoint: 1 more are kept than rows speak of',
  ])
  await attack(`delete from tms.ledger_checkpoints`)
  expect(await judge()).toMatchObject({ verdict: 'unanchored', findings: [] })
  expect(await places({ checkpoint })).toEqual([expect.stringMatching(/^checkpoint: the end was cut off: it covers/)])
})

test('history rewritten with every hash after it is found by the checkpoint alone', async () => {
  await attack(`update tms.ledger_inbox set why = 'because' where id = 30`, rewriteAll)
  expect(await places()).toEqual([
    expect.stringMatching(/^stored checkpoint of \d+ rows: the rows it covers were rewritten/),
  ])
  // with the stored one made to fit as far as that goes without the key
  await attack(
    `update tms.ledger_checkpoints set root = tms._tree_hash(0, size)`,
    `update tms.ledger_checkpoints set note = split_part(note, E'\\n', 1) || E'\\n' || size || E'\\n' || encode(root, 'base64') || E'\\n\\n' || split_part(note, E'\\n\\n', 2)`,
  )
  expect(await places()).toEqual([
    expect.stringMatching(/^checkpoint of \d+ rows: its root is not the one that was stored$/),
    expect.stringMatching(/^stored checkpoint of \d+ rows: the signature of .* is wrong$/),
  ])
  // gone, and every row that speaks of it gone too: as it would have been made
  await attack(
    `delete from tms.ledger_checkpoints`,
    `update tms.ledger_inbox set action = 'x.y' where action = 'ledger.checkpoint'`,
    rewriteAll,
  )
  expect(await judge()).toMatchObject({ verdict: 'unanchored', findings: [] })
  const [finding, ...more] = await places({ checkpoint })
  expect([finding, more]).toEqual([
    expect.stringMatching(/^checkpoint: history was rewritten: something in rows 0-/),
    [],
  ])
})

test('two rows that changed places are found', async () => {
  await attack(
    `update tms.ledger set inbox_id = -1 where seq = 29`,
    `update tms.ledger set inbox_id = 30 where seq = 30`,
    `update tms.ledger set inbox_id = 31 where seq = 29`,
  )
  expect(await places()).toEqual(['rows 29-30: it says something else than when it was sealed'])
})

test.each([
  ['ledger_inbox', /^rows 0-\d+: sealed, and gone from the inbox/],
  ['ledger', /^rows 0-\d+: sealed, and cut off the end of the ledger/],
  ['ledger_nodes', /^rows 0-15: the tree above it does not fit its rows/],
])('%s emptied with its trigger off is found', async (table, expected) => {
  await attack(`truncate tms.${table}`)
  expect(await places()).toContainEqual(expect.stringMatching(expected))
})

test('hashes changed in place are found: of a row, of a leaf, of a subtree', async () => {
  await attack(`update tms.ledger set row_hash = repeat('0', 64) where seq = 29`)
  expect(await places()).toEqual([
    'row 29: it says something else than when it was sealed',
    'row 30: it does not follow the row before it',
  ])
  await attack(`update tms.ledger set row_hash = (select prev_hash from tms.ledger where seq = 30) where seq = 29`)
  await attack(`update tms.ledger set leaf = sha256('x') where seq = 29`)
  expect(await places()).toContain('row 29: its place in the tree is not its hash')
  await attack(`update tms.ledger set leaf = (select leaf from public.kept_ledger where seq = 29) where seq = 29`)
  await attack(`update tms.ledger_nodes set hash = sha256('x') where level = 5 and index = 1`)
  expect(await places()).toContain('rows 32-63: the tree above it does not fit its rows')
})

test('a row that nobody seals is found after a minute, and found again by looking everywhere', async () => {
  const [row] =
    await book.sql(`insert into tms.ledger_inbox (at, xid, who, credential, role, fn, action, outcome, subject, why, body, body_sha256)
    values (now() - interval '2 minutes', '1', 'x', 'x', 'x', 'x', 'x', 'done', 'x', 'x', '{}', encode(sha256('{}'), 'hex')) returning id`)
  expect((await sealLedger(book.operator)).sealed).toBe(0)
  expect(await places()).toEqual([
    expect.stringMatching(`^inbox ${String(row?.['id'])}-${String(row?.['id'])}: 1 rows wait`),
  ])
  expect((await sealLedger(book.operator, { everything: true })).sealed).toBe(1)
  expect(await places()).toEqual([])
})

test('a stored checkpoint that is gone, and one that was slipped in, are found by the rows that speak of them', async () => {
  await attack(`delete from tms.ledger_checkpoints`)
  expect(await places()).toEqual([
    expect.stringMatching(/^checkpoint of \d+ rows: it was signed and stored, and is gone$/),
  ])
  await attack(
    `insert into tms.ledger_checkpoints overriding system value select * from public.kept_ledger_checkpoints`,
    `insert into tms.ledger_checkpoints (size, root, note, key, by_name) select size, root, note, repeat('a', 64), by_name from public.kept_ledger_checkpoints`,
  )
  expect(await places()).toContain('ledger.checkpoint: 1 more are kept than rows speak of')
})

test.each([
  [
    'a longer time to sign in',
    `update tms.signing_keys set not_after = not_after + interval '1 day'`,
    'it is not what was registered',
  ],
  [
    'an end that was taken back',
    `update tms.signing_keys set state = 'retired', ended_at = now()`,
    'the time at which another took over from it was changed',
  ],
  ['nothing left of it', `delete from tms.signing_keys`, 'it was registered, and is gone'],
])('a signing key with %s is found', async (_, change, what) => {
  const found = await withKeys(change, places)
  expect(found).toEqual([`signing key ${book.signer.fingerprint.slice(0, 16)}: ${what}`])
})

test('what no hash covers is said, and not passed over', async () => {
  await attack(
    `update tms.ledger set sealed_at = now()`,
    `update tms.ledger_inbox set principal_id = gen_random_uuid()`,
  )
  const { findings, unchecked } = await judge({ checkpoint })
  expect([findings, unchecked]).toEqual([[], expect.arrayContaining([expect.stringMatching(/sealed_at.*in no hash/)])])
})

test('a ledger in which nothing is sealed gives no answer, and no good one', async () => {
  await attack(
    `truncate ${tables.map((table) => `tms.${table}`).join(', ')}`,
    `insert into tms.ledger_sealer default values`,
  )
  const v = await withKeys(`delete from tms.signing_keys`, judge)
  expect([v.verdict, verificationUnknown(v)?.code]).toEqual(['empty', 'NO_DATA'])
})

test('a database restored into another cluster, with other transaction ids, goes on without a gap', async () => {
  await attack(`update tms.ledger_inbox set xid = (xid::text::bigint + 1000000000)::text::xid8`)
  await book.record(5)
  await attack(
    `update tms.ledger_inbox set xid = (xid::text::bigint + 1000000000)::text::xid8 where id > (select max(inbox_id) from tms.ledger) + 2`,
    `update tms.ledger_sealer set cluster = 'the old one', xid = '1000000000'`,
  )
  await book.record(5)
  await sealLedger(book.operator)
  await book.record(5)
  await sealLedger(book.operator)
  expect(await judge({ checkpoint })).toMatchObject({ verdict: 'verified', findings: [] })
  const [left] = await book.sql(
    `select count(*)::int as n from tms.ledger_inbox i where not exists (select from tms.ledger l where l.inbox_id = i.id)`,
  )
  expect(left?.['n']).toBe(0)
})

test('a checkpoint of another database is refused by name', async () => {
  const other = checkpoint.replaceAll(/tms\.invalid\/ledger\/[0-9a-f-]+/g, `tms.invalid/ledger/${randomUUID()}`)
  expect(await places({ checkpoint: other })).toContain('checkpoint: it is of another ledger')
})
