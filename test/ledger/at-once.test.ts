import pg from 'pg'
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { granted } from '../../src/drivers/refusal.ts'
import { ledgerHead, sealLedger } from '../../src/ledger/ledger.ts'
import { verifyLedger } from '../../src/ledger/verify.ts'
import { supabaseSubject, type SupabaseSubject } from '../contract/subjects.ts'
import { openBook, rows, type Book } from './book.ts'

/** Many at once: nobody waits for the sealer, and it forgets nothing. */

let book: Book
let subject: SupabaseSubject
const open: pg.Client[] = []

beforeAll(async () => {
  subject = await supabaseSubject()
  book = await openBook(subject)
})
afterAll(async () => {
  for (const client of open) await client.end()
  await book.stop()
})

async function client(): Promise<pg.Client> {
  const made = new pg.Client({ connectionString: subject.database.superuserUrl })
  await made.connect()
  open.push(made)
  return made
}

const unsealed = async () =>
  Number(
    (
      await book.sql(
        `select count(*) as n from tms.ledger_inbox i where not exists (select from tms.ledger l where l.inbox_id = i.id)`,
      )
    )[0]?.['n'],
  )

test('twenty writers while it is being sealed: every committed row has one place, and there is no gap', async () => {
  const writers = await Promise.all(Array.from({ length: 20 }, client))
  let writing = true
  const sealer = async () => {
    while (writing) await sealLedger(book.operator)
  }
  const write = async (writer: pg.Client, who: number) => {
    for (let i = 0; i < 25; i++) {
      await writer.query('begin')
      await writer.query(rows(1 + ((who + i) % 3)))
      if (i % 5 === 4) {
        await writer.query('savepoint s')
        await writer.query(rows(2))
        await writer.query('rollback to s')
      }
      await writer.query((who + i) % 4 === 0 ? 'rollback' : 'commit')
    }
  }
  const sealing = [sealer(), sealer()]
  await Promise.all(writers.map(write))
  writing = false
  await Promise.all(sealing)
  await sealLedger(book.operator)

  expect(await unsealed()).toBe(0)
  const [numbers] = await book.sql(
    `select count(*)::int as n, max(seq)::int as last, count(distinct inbox_id)::int as rows, (select count(*)::int from tms.ledger_inbox) as recorded,
            (select max(id)::int from tms.ledger_inbox) as ids from tms.ledger`,
  )
  expect(numbers).toMatchObject({ n: Number(numbers?.['last']) + 1, rows: numbers?.['n'], recorded: numbers?.['n'] })
  // ids that were rolled back are no gap
  expect(Number(numbers?.['ids'])).toBeGreaterThan(Number(numbers?.['n']))
  expect((await verifyLedger(book.operator, {})).findings).toEqual([])
})

test('an open transaction holds back its own rows and nobody else, and gets its place when it commits', async () => {
  const slow = await client()
  await slow.query('begin')
  await slow.query(rows(3))
  const later = await client()
  await later.query(rows(7))

  expect(await sealLedger(book.operator)).toMatchObject({ sealed: 7, pending: '0' })
  await later.query(rows(1))
  expect((await sealLedger(book.operator)).sealed).toBe(1)
  await slow.query('commit')
  expect((await sealLedger(book.operator)).sealed).toBe(3)

  const order = await book.sql(
    `select i.id::int as id from tms.ledger l join tms.ledger_inbox i on i.id = l.inbox_id order by l.seq desc limit 11`,
  )
  const ids = order.map((row) => Number(row['id'])).reverse()
  // the three were recorded first, and are last
  expect(Math.max(...ids.slice(-3))).toBeLessThan(Math.min(...ids.slice(0, 7)))
  expect((await verifyLedger(book.operator, {})).findings).toEqual([])
})

test('while somebody seals, another answers at once and writers go on', async () => {
  const sealing = await client()
  await sealing.query('begin')
  await sealing.query(`select tms._latch('ledger')`)
  await sealing.query(`update tms.ledger_sealer set size = size`)

  const writer = await client()
  await writer.query(`set lock_timeout = '1s'`)
  await writer.query(rows(2))
  expect(granted(await book.operator.call('ledger_seal', {}))).toMatchObject({ sealed: 0, busy: true })
  const head = granted(await book.operator.call('ledger_head', {}))
  expect(head.pending).toBe('2')
  await sealing.query('rollback')
  expect((await sealLedger(book.operator)).sealed).toBe(2)
})

test('a backlog is sealed in batches, a transaction larger than a batch included', async () => {
  await book.sql(rows(2500))
  await book.record(10)
  for (const sealed of [1000, 1000, 510]) {
    expect(granted(await book.operator.call('ledger_seal', { limit: 1000 }))).toMatchObject({
      sealed,
      more: sealed === 1000,
    })
  }
  expect((await verifyLedger(book.operator, {})).findings).toEqual([])
})

test('a request that was recorded is sealed together with the refusal that follows it', async () => {
  const name = await subject.credential('viewer')
  granted(await book.operator.call('tenants_add', { request_id: randomUUID(), key: 'acme', name: 'Acme' }))
  granted(
    await book.operator.call('users_grant', {
      request_id: randomUUID(),
      principal: 'viewer@acme',
      role: 'viewer',
      tenant: 'acme',
      credential: name,
    }),
  )
  const viewer = await subject.as(name.name)
  try {
    expect(await viewer.call('ledger_seal', {})).toHaveProperty('refused.code', 'ROLE_DENIED')
    expect(await viewer.call('ledger_lines', { from: '0', to: '10' })).toHaveProperty('refused.code', 'ROLE_DENIED')
    // hashes say nothing about anybody; how many rows wait is not theirs to know
    expect(granted(await viewer.call('ledger_head', {}))).toMatchObject({ pending: null })
  } finally {
    await viewer.close()
  }
  await sealLedger(book.operator)
  const { rows: newest } = granted(await book.operator.call('ledger_tail', { limit: 2 }))
  expect(newest.map(({ outcome, seq }) => [outcome, seq === null])).toContainEqual(['refused', false])
})

test('no role of the product changes, deletes or empties what is sealed, the owner of the tables neither', async () => {
  const columns = { ledger: 'leaf', ledger_nodes: 'hash', ledger_checkpoints: 'note', ledger_witnesses: 'line' }
  for (const [table, column] of Object.entries(columns)) {
    for (const statement of [
      `update tms.${table} set ${column} = ${column}`,
      `delete from tms.${table}`,
      `truncate tms.${table} cascade`,
    ]) {
      const as = (who: string) => book.sql(`begin; set local ${who}; ${statement}; commit`)
      await expect(as('session_replication_role = replica')).rejects.toThrow('is append-only')
      await expect(as('role tms_owner')).rejects.toThrow('is append-only')
      await expect(as('role tms_caller')).rejects.toThrow('permission denied')
    }
  }
})

test('a dispatcher reads what is theirs, and of all other rows gets hashes only', async () => {
  const write = () => ({ request_id: randomUUID() })
  granted(await book.operator.call('tenants_add', { ...write(), key: 'globex', name: 'Globex' }))
  const credential = await subject.credential('dispatcher')
  granted(
    await book.operator.call('users_grant', {
      ...write(),
      principal: 'd@globex',
      role: 'dispatcher',
      tenant: 'globex',
      credential,
    }),
  )
  await book.sql(`insert into tms.ledger_inbox (who, credential, role, fn, action, outcome, company_id, subject, why, body, body_sha256)
    select 'd', 'x', 'x', 'x', 'x', 'done', id, 'x', 'theirs', '{}', encode(sha256('{}'), 'hex') from tms.companies where key = 'globex'`)
  await sealLedger(book.operator)
  const { size } = await ledgerHead(book.operator)
  const dispatcher = await subject.as(credential.name)
  try {
    const { rows } = granted(await dispatcher.call('ledger_lines', { from: String(size - 100), to: String(size) }))
    const shown = rows.filter(([line]) => line !== null)
    expect(shown.map(([, , why]) => why)).toContain('theirs')
    expect(shown.length).toBeLessThan(10)
    expect(JSON.stringify(rows)).not.toMatch(/Łódź|ann\d/)
    expect(rows.every(([, , , , hash, leaf]) => /^[0-9a-f]{64}$/.test(hash) && leaf.length === 44)).toBe(true)
    expect(await dispatcher.call('ledger_show', { seq: '2' })).toHaveProperty('refused.code', 'NOT_FOUND')
    expect(await dispatcher.call('ledger_seal', {})).toHaveProperty('refused.code', 'ROLE_DENIED')
    expect(await dispatcher.call('ledger_verify', { from: '0', to: '16' })).toHaveProperty(
      'refused.code',
      'ROLE_DENIED',
    )
  } finally {
    await dispatcher.close()
  }
})
