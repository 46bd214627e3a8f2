import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromBase64, fromDecimal, fromHex, textOf, toBase64, toHex } from '../../src/proof/bytes.ts'
import {
  canonicalFile,
  canonicalJson,
  parseCanonical,
  parseCanonicalFile,
  type Canonical,
} from '../../src/proof/canonical.ts'

const documents = fc.letrec<{ value: Canonical }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.string({ unit: 'grapheme' }),
    fc.maxSafeInteger(),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(fc.string({ unit: 'grapheme-ascii', maxLength: 8 }), tie('value'), { maxKeys: 4 }),
  ),
})).value

describe('canonical JSON', () => {
  test('writes the example of RFC 8785 as far as it holds no fractions', () => {
    const value = { string: '\u20ac$\u000F\u000aA\'\u0042\u0022\u005c\\"/', literals: [null, true, false], n: [1, -0] }
    expect(canonicalJson(value)).toBe(
      '{"literals":[null,true,false],"n":[1,0],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
    )
  })

  test('sorts keys by their bytes, digits before capitals before small letters', () => {
    expect(canonicalJson({ b: 1, a: 1, B: 1, '10': 1, '9': 1, '': 1 })).toBe('{"":1,"10":1,"9":1,"B":1,"a":1,"b":1}')
  })

  test('says the same as JSON, and reads back what it wrote', () => {
    fc.assert(
      fc.property(documents, (value) => {
        const text = canonicalJson(value)
        expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(value)))
        expect(canonicalJson(parseCanonical(text))).toBe(text)
        expect(canonicalJson(parseCanonicalFile(canonicalFile(value)))).toBe(text)
      }),
    )
  })

  test.each([
    ['a blank', '{"a": 1}'],
    ['another order', '{"b":1,"a":1}'],
    ['a key twice', '{"a":1,"a":1}'],
    ['another escape', '"\\u0041"'],
    ['a solidus escaped', '"\\/"'],
    ['capital hex', '"\\u001F"'],
    ['a fraction', '1.5'],
    ['an exponent', '1e3'],
    ['minus zero', '-0'],
    ['2^53', '9007199254740992'],
    ['half a character', '"\\ud800"'],
    ['a key that is not ASCII', '{"é":1}'],
    ['a newline at the end', '1\n'],
    ['a byte order mark', '\ufeff1'],
    ['nothing', ''],
    ['nesting without end', '['.repeat(100_000)],
    ['deep nesting', `${'['.repeat(80)}${']'.repeat(80)}`],
  ])('refuses %s', (_, text) => {
    expect(() => parseCanonical(text)).toThrow(expect.objectContaining({ name: 'ProofError' }))
  })

  test.each([
    ['a fraction', 0.5],
    ['no number', NaN],
    ['2^53', 2 ** 53],
    ['half a character', '\udc00'],
    // True because these are what a caller could hand over by mistake.
    ['a date', new Date(0) as unknown as Canonical],
    ['bytes', Buffer.from('a') as unknown as Canonical],
    ['a bigint', 1n as unknown as Canonical],
  ])('does not write %s', (_, value) => {
    expect(() => canonicalJson({ value })).toThrow(expect.objectContaining({ name: 'ProofError' }))
  })

  test('a file of it ends with one newline', () => {
    for (const text of ['{}', '{}\n\n', '{}\r\n', ' {}\n']) {
      expect(() => parseCanonicalFile(text)).toThrow(expect.objectContaining({ name: 'ProofError' }))
    }
    expect(parseCanonicalFile('{}\n')).toEqual({})
  })
})

describe('one spelling for each byte sequence', () => {
  test('base64 and hex are read back as they are written, and nothing else is', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), fc.string({ maxLength: 12 }), (bytes, text) => {
        expect(fromBase64(toBase64(bytes))).toEqual(bytes)
        expect(fromHex(toHex(bytes))).toEqual(bytes)
        expect(reads(() => toBase64(fromBase64(text)))).toBeOneOf([text, null])
        expect(reads(() => toHex(fromHex(text)))).toBeOneOf([text, null])
      }),
    )
  })

  test.each(['QR==', 'QQ', 'QQ=', ' QQ==', 'QQ==\n', 'QQ==QQ==', 'Q_8=', 'QQ=='.repeat(2), '\u{ff31}Q=='])(
    'base64 %j is refused',
    (text) => {
      expect(() => fromBase64(text)).toThrow(expect.objectContaining({ name: 'ProofError' }))
    },
  )

  test.each(['A0', 'a', '0g', ' 00', '00\n'])('hex %j is refused', (text) => {
    expect(() => fromHex(text)).toThrow(expect.objectContaining({ name: 'ProofError' }))
  })

  test.each(['', '01', '+1', '-0', '1 ', '1e3', '9007199254740992', '0x1', '٣'])('number %j is refused', (text) => {
    expect(() => fromDecimal(text)).toThrow(expect.objectContaining({ name: 'ProofError' }))
  })

  test('bytes that are no UTF-8 are refused, and a byte order mark stays visible', () => {
    for (const bytes of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xe2, 0x82]]) {
      expect(() => textOf(Uint8Array.from(bytes))).toThrow(expect.objectContaining({ name: 'ProofError' }))
    }
    expect(textOf(Uint8Array.from([0xef, 0xbb, 0xbf, 0x41]))).toBe('\ufeffA')
  })
})

function reads(read: () => string): string | null {
  try {
    return read()
  } catch {
    return null
  }
}
