import { readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { makePrivateKey, signerOf } from '../../src/keys/private.ts'
import { embeddedSubject } from '../contract/subjects.ts'
import { json, surroundings, tms } from '../fleet-commands/run.ts'
import { openBook, type Book } from './book.ts'

/** Every command of the ledger on one embedded database, as super_admin. */

let book: Book
let folder: string
let restore: () => void

beforeAll(async () => {
  const pem = makePrivateKey()
  const signer = signerOf(pem)
  if (!signer) throw new Error('a new key signs')
  book = await openBook(await embeddedSubject(), signer)
  folder = await mkdtemp(join(tmpdir(), 'tms-ledger-commands-'))
  const directory = book.operator.target.name.replace('embedded ', '')
  writeFileSync(join(folder, 'tms.config.yaml'), `driver: embedded\ndirectory: ${directory}\n`)
  writeFileSync(join(folder, 'key.pem'), signer.publicKeyPem)
  writeFileSync(join(folder, 'witness.pem'), makePrivateKey())
  restore = surroundings(folder, { TMS_SIGNING_KEY: pem })
})
afterAll(async () => {
  restore()
  await book.stop()
  await rm(folder, { recursive: true, force: true })
})
afterEach(() => vi.restoreAllMocks())

const read = (name: string) => readFileSync(join(folder, name), 'utf8')

test('seal, tail and show: what was recorded has a place, and everything it says', async () => {
  await book.record(3)
  expect((await tms('ledger tail')).out).toContain('waits')
  expect(await tms('ledger seal')).toMatchObject({
    code: 0,
    out: expect.stringMatching(/^Sealed \d+ rows\. The ledger has \d+\.\n$/),
  })
  expect((await tms('ledger tail')).out).not.toContain('waits')
  const { code, out } = await tms('ledger show', '2')
  expect([code, out]).toEqual([0, expect.stringMatching(/row +2\n[^]*row hash +[0-9a-f]{64}\n[^]*tms ledger prove 2/)])
  const { data } = await json('ledger show', '2')
  expect(data).toMatchObject({ seq: '2' })
  const said = data as Record<string, string>
  for (const name of ['id', 'fn', 'body', 'body_sha256', 'prev_hash', 'row_hash', 'leaf']) {
    expect([name, out.includes(said[name] ?? '?')]).toEqual([name, true])
  }
  expect((await json('ledger show', '99999')).error?.code).toBe('NOT_FOUND')
  expect(await json('ledger show', 'last')).toMatchObject({ code: 2, error: { code: 'USAGE' } })
})

test('checkpoint prints the note and nothing else, prove a proof, so that both can be redirected to a file', async () => {
  const printed = await tms('ledger checkpoint')
  expect(printed.out).toMatch(
    /^tms\.invalid\/ledger\/[0-9a-f-]+\n\d+\n[A-Za-z0-9+/=]{44}\n\n— tms\.invalid\/ledger\/\S+ \S+\n$/,
  )
  expect((await tms('ledger checkpoint', '--out', 'old.txt')).code).toBe(0)
  await book.record(5)
  expect((await tms('ledger checkpoint', '--out', 'new.txt')).out).toMatch(
    /^Wrote a checkpoint of \d+ rows to new\.txt\.\n$/,
  )

  const proof = await tms('ledger prove', '3')
  expect(proof.out).toMatch(/^c2sp\.org\/tlog-proof@v1\nindex 3\n[^]*\n\n[^]*\n— /)
  expect((await tms('ledger prove', '3', '--out', 'row.proof')).code).toBe(0)
  expect(read('row.proof')).toBe(proof.out)
  expect((await tms('ledger prove', '--from', 'old.txt')).out).toMatch(/^tms-consistency-v1\n/)
  await book.record(5)
  expect((await tms('ledger checkpoint', '--out', 'newest.txt')).code).toBe(0)
  const lines = (name: string) => read(name).split('\n')
  const between = await tms('ledger prove', '--from', 'old.txt', '--to', 'new.txt')
  expect(between.out.split('\n').slice(2, 4)).toEqual(
    ['old.txt', 'new.txt'].map((name) => `${lines(name)[1]} ${lines(name)[2]}`),
  )
  expect(await json('ledger prove', '--from', 'new.txt', '--to', 'old.txt')).toMatchObject({
    code: 2,
    error: { code: 'INPUT_INVALID' },
  })
  expect((await json('ledger prove', '3', '--to', 'old.txt')).code).toBe(2)
  expect((await json('ledger prove', '3', '--from', 'old.txt')).code).toBe(2)
  expect((await json('ledger prove')).code).toBe(2)
  expect((await json('ledger prove', '--from', 'nosuch.txt')).error?.code).toBe('USAGE')
})

test('verify says what was checked and what was not, and exits 1 when something does not fit', async () => {
  expect((await tms('ledger checkpoint', '--out', 'now.txt')).code).toBe(0)
  const alone = await tms('ledger verify')
  expect([alone.code, alone.out]).toEqual([
    0,
    expect.stringMatching(/nothing from outside vouches[^]*Not checked: Nothing from outside/),
  ])
  const whole = await tms('ledger verify', '--checkpoint', 'now.txt', '--key', 'key.pem')
  expect([whole.code, whole.out]).toEqual([0, expect.stringMatching(/verified[^]*holds, signed by the key/)])
  expect((await json('ledger verify', '--key', 'witness.pem')).error?.code).toBe('INPUT_INVALID')

  const say = (why: string) =>
    book.sql(`alter table tms.ledger_inbox disable trigger append_only; update tms.ledger_inbox set why = ${why} where id = 3;
              alter table tms.ledger_inbox enable always trigger append_only; select 1`)
  await say(`why || ' and more'`)
  const broken = await tms('ledger verify')
  expect([broken.code, broken.out]).toEqual([1, expect.stringMatching(/broken[^]*row \d+: it says something else/)])
  expect(await json('ledger verify')).toMatchObject({ code: 1, ok: false, data: { verdict: 'broken' }, error: null })
  await say(`replace(why, ' and more', '')`)
})

/** Rows as they are an hour after the last action, when no fleet runs. */
const record = (n: number, xid = 'pg_current_xact_id()') =>
  book.sql(`insert into tms.ledger_inbox (at, xid, who, credential, role, fn, action, outcome, subject, why, body, body_sha256)
    select now() - interval '1 hour', ${xid}, 'x', 'x', 'x', 'x', 'x', 'done', 'x', 'x', '{}', encode(sha256('{}'), 'hex') from generate_series(1, ${n}) returning id`)
const brokenLedgers = async () =>
  (await book.sql(`select id from tms.incidents where type = 'ledger_broken' and closed_at is null`)).length

test('rows that nobody has sealed for an hour are sealed and verified, and are no finding', async () => {
  await book.sql(`delete from tms.incidents; select 1`)
  await record(3)
  const { code, out } = await tms('ledger verify')
  expect([code, out]).toEqual([0, expect.stringMatching(/nothing from outside vouches/)])
  expect(await brokenLedgers()).toBe(0)
})

test('rows that the sealer passes by are a finding of their own: exit 1, nothing is called broken, no incident', async () => {
  await record(2, `'1'`)
  const { code, out } = await tms('ledger verify')
  expect([code, out]).toEqual([1, expect.stringMatching(/some rows have no place[^]*ledger seal --everything/)])
  expect(out).not.toMatch(/broken|changed/)
  expect(await brokenLedgers()).toBe(0)
  expect((await tms('ledger seal', '--everything')).code).toBe(0)
  expect((await tms('ledger verify')).code).toBe(0)
})

test('export writes a file that verify checks without the database', async () => {
  const written = await tms('ledger export', '--out', 'ledger.jsonl', '--redacted')
  expect([written.code, written.out]).toEqual([0, expect.stringMatching(/^Wrote rows 0-\d+ to ledger\.jsonl, without/)])
  const verified = await tms('ledger verify', '--export', 'ledger.jsonl', '--key', 'key.pem')
  expect([verified.code, verified.out]).toEqual([0, expect.stringMatching(/^ledger\.jsonl: verified/)])
  expect((await tms('ledger verify', '--export', 'ledger.jsonl')).code).toBe(1)
  expect((await tms('ledger verify', '--export', 'ledger.jsonl', '--allow-unanchored')).code).toBe(0)
  writeFileSync(join(folder, 'cut.jsonl'), read('ledger.jsonl').split('\n').slice(0, -3).join('\n'))
  expect((await tms('ledger verify', '--export', 'cut.jsonl', '--key', 'key.pem')).code).toBe(1)
  // what never was an export is no export that somebody changed
  for (const name of ['key.pem', 'new.txt']) {
    expect(await json('ledger verify', '--export', name)).toMatchObject({ code: 2, error: { code: 'INPUT_INVALID' } })
  }
  writeFileSync(join(folder, 'header.jsonl'), read('ledger.jsonl').replace('"from":0', '"from":"0"'))
  expect((await tms('ledger verify', '--export', 'header.jsonl', '--key', 'key.pem')).code).toBe(1)
  expect((await json('ledger export', '--from', '5', '--to', '5', '--out', 'none.jsonl')).error?.code).toBe('USAGE')
})

test('a witness countersigns the file, and with --store its line comes with the next proof', async () => {
  const args = ['new.txt', '--key', 'witness.pem', '--name', 'auditor.example/1', '--log-key', 'key.pem'] as const
  const seen = await tms('ledger witness', ...args)
  expect([seen.code, seen.out]).toEqual([
    0,
    expect.stringMatching(/— tms\.invalid\/[^\n]+\n— auditor\.example\/1 \S+\n$/),
  ])
  expect((await tms('ledger witness', ...args, '--store', '--out', 'witnessed.txt')).code).toBe(0)
  expect((await tms('ledger prove', '6')).out).toContain('\n— auditor.example/1 ')

  const verify = ['--checkpoint', 'witnessed.txt', '--key', 'key.pem'] as const
  writeFileSync(join(folder, 'witness-public.pem'), signerOf(read('witness.pem'))?.publicKeyPem ?? '')
  expect((await tms('ledger verify', ...verify)).out).toContain(
    'Not checked: Witnesses of the checkpoint: auditor.example/1',
  )
  const known = await tms('ledger verify', ...verify, '--witness-key', 'witness-public.pem')
  expect([known.code, known.out]).toEqual([0, expect.not.stringContaining('Witnesses')])
  const other = await tms('ledger verify', ...verify, '--witness-key', 'key.pem')
  expect([other.code, other.out]).toEqual([1, expect.stringContaining("not cosigned by the witness's key")])
  for (const name of ['bad name', 'bad+name', '']) {
    expect(await json('ledger witness', 'new.txt', '--key', 'witness.pem', '--name', name)).toMatchObject({
      code: 2,
      error: { code: 'USAGE' },
    })
  }
})
