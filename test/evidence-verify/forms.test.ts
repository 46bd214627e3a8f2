import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { checkCanonicalFile, isDay, parseManifestRow } from '../../src/evidence/verify-forms.ts'
import { parseConsistency } from '../../src/proof/consistency.ts'
import { ProofError } from '../../src/proof/bytes.ts'
import { canonicalFile, parseCanonicalFile, type Canonical } from '../../src/proof/canonical.ts'
import { addRow, proofBetween, startLedger } from './packs.ts'

function accepts(read: () => unknown): boolean {
  try {
    read()
    return true
  } catch (error) {
    if (error instanceof ProofError) return false
    throw error
  }
}

test('the quick look at canonical JSON says what the slow one says, of good texts and of spoilt ones', () => {
  const odd = [
    '{"b":1,"a":2}\n',
    '{"a":1,"a":1}\n',
    '[1.0]\n',
    '[1.5]\n',
    '["\\ud800"]\n',
    '{"ä":1}\n',
    '[ 1]\n',
    '1',
    '{"10":1,"9":2}\n',
  ]
  for (const text of [
    ...odd,
    '[9007199254740993]\n',
    '[-0]\n',
    '"\\u0041"\n',
    `${'['.repeat(70)}${']'.repeat(70)}\n`,
  ]) {
    expect([text, accepts(() => checkCanonicalFile(text))]).toEqual([text, accepts(() => parseCanonicalFile(text))])
  }
  const values = fc.jsonValue({ noUnicodeString: false }).map((value) => value as Canonical)
  fc.assert(
    fc.property(values, fc.nat(), fc.nat(7), (value, at, bit) => {
      let text: string
      try {
        text = canonicalFile(value)
      } catch {
        text = `${JSON.stringify(value)}\n`
      }
      const bytes = Buffer.from(text)
      const index = at % bytes.length
      bytes[index] = (bytes[index] ?? 0) ^ (1 << bit)
      return [text, bytes.toString()].every(
        (candidate) => accepts(() => checkCanonicalFile(candidate)) === accepts(() => parseCanonicalFile(candidate)),
      )
    }),
    { numRuns: 2000 },
  )
})

test('no changed bit of a proof of consistency or of a row of the ledger reads as the same', () => {
  const ledger = startLedger()
  for (let n = 0; n < 9; n += 1) addRow(ledger, '2026-10-01', 'x')
  const proof = proofBetween(ledger, 5, 9)
  const body = JSON.stringify({ day: '2026-10-01', manifest_sha256: '0'.repeat(64), revision: 1 })
  const row = `${ledger.lines[addRow(ledger, '2026-10-01', 'evidence.manifest', '', body)] ?? ''}\n\n${body}\n`
  for (const [text, parse] of [
    [proof, (candidate: string) => parseConsistency(candidate)],
    [row, (candidate: string) => parseManifestRow(candidate)],
  ] as const) {
    const whole = JSON.stringify(parse(text))
    for (let bit = 0; bit < text.length * 8; bit += 1) {
      const bytes = Buffer.from(text)
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      const candidate = bytes.toString()
      if (accepts(() => parse(candidate))) expect(JSON.stringify(parse(candidate))).not.toBe(whole)
    }
  }
})

test('a day is a day of the calendar', () => {
  expect(['2026-02-28', '2026-02-29', '2024-02-29', '2026-13-01', '26-01-01', '2026-1-1'].map(isDay)).toEqual([
    true,
    false,
    true,
    false,
    false,
    false,
  ])
})
