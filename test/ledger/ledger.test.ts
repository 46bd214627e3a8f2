import { execFileSync } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { granted } from '../../src/drivers/refusal.ts'
import { writeFileAtomically } from '../../src/files.ts'
import {
  makeLedgerCheckpoint,
  newestCheckpoint,
  storeWitness,
  witnessCheckpoint,
  witnessedNote,
} from '../../src/ledger/checkpoint.ts'
import { parseConsistency } from '../../src/proof/consistency.ts'
import { exportText, planExport } from '../../src/ledger/export.ts'
import { verifyExportFile } from '../../src/ledger/files.ts'
import { ledgerHead, sealLedger, showLedgerRow } from '../../src/ledger/ledger.ts'
import { proveConsistency, proveRow } from '../../src/ledger/prove.ts'
import { verifyLedger } from '../../src/ledger/verify.ts'
import { fromBase64, toBase64 } from '../../src/proof/bytes.ts'
import {
  consistencyProof,
  inclusionProof,
  leafHash,
  rootOf,
  verifyConsistency,
  verifyInclusion,
} from '../../src/proof/merkle.ts'
import { signNote, verifyCheckpoint, verifyCosignature } from '../../src/proof/note.ts'
import { parseTlogProof } from '../../src/proof/tlog-proof.ts'
import { subjects } from '../contract/subjects.ts'
import { newSigner, openBook, type Book } from './book.ts'

describe.each(Object.entries(subjects))('the ledger through %s', (_, make) => {
  let book: Book
  let folder: string
  beforeAll(async () => {
    book = await openBook(await make())
    folder = await mkdtemp(join(tmpdir(), 'tms-ledger-'))
  })
  afterAll(async () => {
    await book.stop()
    await rm(folder, { recursive: true, force: true })
  })

  const leaves = async () => {
    const size = (await ledgerHead(book.operator)).size
    const { rows } = granted(await book.operator.call('ledger_lines', { from: '0', to: String(size) }))
    return rows.map(([line, , , , , leaf]) => {
      const hash = leafHash(line ?? '')
      expect(toBase64(hash)).toBe(leaf)
      return hash
    })
  }
  const exported = async (input: { from?: string; to?: string; redacted?: boolean } = {}) => {
    const path = join(folder, `${randomUUID()}.jsonl`)
    const all = { redacted: false, ...input }
    const plan = await planExport(book.operator, all)
    await writeFileAtomically(path, exportText(book.operator, plan, all))
    return path
  }

  test('every recorded action is sealed once, in a chain that begins with zeros', async () => {
    await book.record(40)
    const { sealed, size } = await sealLedger(book.operator)
    expect(sealed).toBeGreaterThanOrEqual(40)
    expect(String((await ledgerHead(book.operator)).size)).toBe(size)
    expect((await sealLedger(book.operator)).sealed).toBe(0)
    const rows = await book.sql(
      `select l.seq::int as seq, l.prev_hash, l.row_hash from tms.ledger l join tms.ledger_inbox i on i.id = l.inbox_id order by l.seq`,
    )
    expect(rows).toHaveLength(Number(size))
    let previous = '0'.repeat(64)
    for (const [index, row] of rows.entries()) {
      expect([row['seq'], row['prev_hash']]).toEqual([index, previous])
      previous = String(row['row_hash'])
    }
  })

  test('a line can be made with printf and hashed with openssl', async () => {
    const row = await showLedgerRow(book.operator, '7')
    expect(row.line?.split('\n')).toHaveLength(16)
    const script = String.raw`printf 'tms-ledger-v1\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%s' "$@" | openssl dgst -sha256 -r | cut -c1-64`
    const sha = (text: string) => createHash('sha256').update(text).digest('hex')
    const plain = (text: string) => text.replaceAll('\n', ' ')
    const words = [
      ...[row.seq, row.prev_hash, row.id, row.at, plain(row.who), row.credential, row.role, row.fn, row.action],
      ...[row.outcome, '', sha(row.subject), sha(row.why), row.trace_id ?? '', sha(row.body ?? '')],
    ]
    expect(execFileSync('sh', ['-c', script, 'sh', ...words], { encoding: 'utf8' }).trim()).toBe(row.row_hash)
  })

  test('roots and proofs of any size are those of RFC 6962', async () => {
    await book.record(100)
    await sealLedger(book.operator)
    const all = await leaves()
    expect(all.length).toBeGreaterThan(130)
    for (const size of [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, all.length]) {
      const tree = all.slice(0, size)
      expect((await ledgerHead(book.operator, size)).root).toBe(toBase64(rootOf(tree)))
      for (const index of new Set([0, size >> 1, size - 1])) {
        const proof = granted(
          await book.operator.call('ledger_proof', { index: String(index), size: String(size) }),
        ).hashes.map((hash) => fromBase64(hash ?? ''))
        expect(proof).toEqual(inclusionProof(tree, index))
        expect(verifyInclusion({ index, size, leaf: tree[index] ?? new Uint8Array(), root: rootOf(tree), proof })).toBe(
          true,
        )
      }
      for (const from of new Set([0, 1, size >> 1, size - 1, size])) {
        const proof = granted(
          await book.operator.call('ledger_consistency', { from: String(from), to: String(size) }),
        ).hashes.map((hash) => fromBase64(hash ?? ''))
        expect(proof).toEqual(consistencyProof(tree, from))
      }
    }
  })

  test('a checkpoint is signed, stored once, and refused when it is not of this tree', async () => {
    const made = await makeLedgerCheckpoint(book.operator, book.signer)
    const { origin } = await ledgerHead(book.operator)
    expect(verifyCheckpoint(made.note, origin, book.signer)).toMatchObject({ size: made.size })
    const add = (change: object) =>
      book.operator.call('ledger_checkpoint_add', {
        request_id: randomUUID(),
        note: made.note,
        size: String(made.size),
        root: made.root,
        key: made.key,
        ...change,
      })
    expect(await add({})).toMatchObject({ first: false, note: made.note })
    expect(await add({ size: String(made.size - 1) })).toHaveProperty('refused.code', 'CONFLICT')
    expect(await add({ root: toBase64(new Uint8Array(32)) })).toHaveProperty('refused.code', 'CONFLICT')
    const other = newSigner()
    expect(await add({ key: other.fingerprint })).toHaveProperty('refused.code', 'SIGNATURE_INVALID')
    // signed by a key that isn't the one it names
    const text = `${made.note.split('\n\n')[0] ?? ''}\n`
    expect(await add({ note: await signNote(text, origin, other) })).toHaveProperty('refused.code', 'SIGNATURE_INVALID')
    expect(await add({ size: '999999' })).toHaveProperty('refused.code', 'NOT_FOUND')
    const unsigned = `${made.note.split('\n\n')[0] ?? ''}\n\n`
    expect(await add({ note: unsigned })).toHaveProperty('refused.code', 'SIGNATURE_INVALID')
    expect(await add({ note: made.note.replace(/\n— .*\n$/, '\n— other AAAA\n') })).toHaveProperty(
      'refused.code',
      'SIGNATURE_INVALID',
    )
  })

  test('a witness countersigns without the database, and its line is kept with the checkpoint', async () => {
    const made = await makeLedgerCheckpoint(book.operator, book.signer)
    const witness = newSigner()
    const input = { note: made.note, signer: witness, name: 'auditor.example/1', time: 1_800_000_000 }
    const witnessed = await witnessCheckpoint({ ...input, logKey: book.signer })
    await storeWitness(book.operator, witnessed)
    await storeWitness(book.operator, await witnessCheckpoint({ ...input, time: 1_800_000_060 }))
    const stored = await newestCheckpoint(book.operator)
    if (!stored) throw new Error('a checkpoint is stored')
    expect(verifyCosignature(witnessedNote(stored), 'auditor.example/1', witness)).toEqual({ time: 1_800_000_060 })
    await expect(witnessCheckpoint({ ...input, logKey: witness })).rejects.toMatchObject({ code: 'INPUT_INVALID' })
    const refused = await book.operator.call('ledger_witness_add', {
      request_id: randomUUID(),
      size: String(made.size),
      root: made.root,
      line: 'signed by nobody',
    })
    expect(refused).toHaveProperty('refused.code', 'SIGNATURE_INVALID')
  })

  test('a row is proved by a file that ends with the checkpoint, an older checkpoint by the hashes between', async () => {
    const older = await makeLedgerCheckpoint(book.operator, book.signer)
    await book.record(50)
    await sealLedger(book.operator)
    await expect(proveRow(book.operator, String(older.size + 20))).rejects.toMatchObject({ code: 'NO_DATA' })
    const newer = await makeLedgerCheckpoint(book.operator, book.signer)
    const { origin } = await ledgerHead(book.operator)

    const proof = parseTlogProof((await proveRow(book.operator, String(older.size + 20))).text)
    const { size, root } = verifyCheckpoint(proof.checkpoint, origin, book.signer)
    const { line } = await showLedgerRow(book.operator, String(older.size + 20))
    expect(
      verifyInclusion({ index: older.size + 20, size, root, leaf: leafHash(line ?? ''), proof: proof.hashes }),
    ).toBe(true)

    const { from, to, hashes } = parseConsistency((await proveConsistency(book.operator, older.note)).text)
    expect([from.size, to.size]).toEqual([older.size, newer.size])
    expect(
      verifyConsistency({ from: from.size, to: to.size, fromRoot: from.root, toRoot: to.root, proof: hashes }),
    ).toBe(true)
    await expect(proveRow(book.operator, '999999')).rejects.toMatchObject({ code: 'NOT_FOUND' })
  })

  test('an untouched ledger verifies, against a checkpoint and a key from outside', async () => {
    const { note } = await makeLedgerCheckpoint(book.operator, book.signer)
    const alone = await verifyLedger(book.operator, {})
    expect([alone.verdict, alone.findings, alone.checked]).toEqual(['unanchored', [], alone.to])
    expect(await verifyLedger(book.operator, { checkpoint: note, key: book.signer })).toMatchObject({
      verdict: 'verified',
      findings: [],
      checkpoint: { holds: true, signed: true },
    })
    const wrongKey = await verifyLedger(book.operator, { checkpoint: note, key: newSigner() })
    expect([wrongKey.verdict, wrongKey.findings[0]?.place]).toEqual(['broken', 'checkpoint'])
  })

  test('an export verifies without the database: all of it, a part of it, and redacted', async () => {
    await makeLedgerCheckpoint(book.operator, book.signer)
    const key = book.signer
    for (const input of [{}, { from: '17', to: '60' }, { from: '16', to: '17' }, { from: '5', redacted: true }]) {
      const path = await exported(input)
      const v = await verifyExportFile(path, { key })
      expect([v.verdict, v.findings, v.hidden]).toEqual(['verified', [], 0])
      expect((await verifyExportFile(path, {})).verdict).toBe('unanchored')
      expect((await verifyExportFile(path, { key: newSigner() })).verdict).toBe('broken')
    }
    const redacted = await readFile(await exported({ redacted: true }), 'utf8')
    expect(redacted).not.toMatch(/Łódź|日本|ops\.flag/)
  })

  test('whatever is changed in an export is found', async () => {
    await makeLedgerCheckpoint(book.operator, book.signer)
    const text = await readFile(await exported({ from: '20', to: '60' }), 'utf8')
    const lines = text.trimEnd().split('\n')
    const judge = async (changed: string | Uint8Array) => {
      const path = join(folder, 'changed.jsonl')
      await writeFile(path, changed)
      return (await verifyExportFile(path, { key: book.signer })).verdict
    }
    const changed = (change: (lines: string[]) => string[]) => judge(`${change([...lines]).join('\n')}\n`)
    expect(await changed((all) => all)).toBe('verified')
    expect(await changed((all) => all.toSpliced(5, 1))).toBe('broken')
    expect(await changed((all) => all.toSpliced(5, 2, all[6] ?? '', all[5] ?? ''))).toBe('broken')
    expect(await changed((all) => all.toSpliced(5, 0, all[5] ?? ''))).toBe('broken')
    expect(await changed((all) => all.slice(0, -1))).toBe('broken')
    expect(await changed((all) => all.slice(1))).toBe('broken')
    expect(await judge('')).toBe('broken')
    // any bit of what it says; a bit outside of texts may only move a blank
    const bytes = Buffer.from(text)
    for (let at = 3; at < bytes.length; at += 97) {
      const flipped = Buffer.from(bytes)
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8))
      expect([at, await judge(flipped)]).toEqual([at, 'broken'])
    }
  })

  test('finished runs enter as one row for a quarter of an hour, and a changed digest is found', async () => {
    const fold = () => sealLedger(book.operator)
    const digests = `select count(*)::int as n from tms.ledger_inbox where action = 'runs.digest'`
    const add = `insert into tms.run_digests (from_xid, to_xid, runs, sha256) select g, g + 1, 7, repeat('ab', 32) from generate_series(1, 3) g`
    await book.sql(`update tms.ledger_sealer set digest_at = '-infinity'`)
    await book.sql(add)
    await fold()
    await book.sql(add)
    await fold()
    const [{ n } = {}] = await book.sql(digests)
    expect(n).toBe(1)
    await book.sql(`update tms.ledger_sealer set digest_at = digest_at - interval '15 minutes'`)
    await fold()
    const [row] = await book.sql(
      `select body from tms.ledger_inbox where action = 'runs.digest' order by id desc limit 1`,
    )
    expect(JSON.parse(String(row?.['body']))).toMatchObject({ runs: '21', first: '4', last: '6' })
    expect((await verifyLedger(book.operator, {})).verdict).toBe('unanchored')
    await book.sql(`update tms.run_digests set runs = 8 where id = 5`)
    expect((await verifyLedger(book.operator, {})).findings).toMatchObject([
      { what: 'the digests of runs that it speaks of were changed' },
    ])
    await book.sql(`update tms.run_digests set runs = 7 where id = 5`)
  })
})
