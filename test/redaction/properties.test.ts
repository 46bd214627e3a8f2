import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { redact, redactError, redactText, type Json } from '../../src/redaction/redact.ts'
import { around, card, harmless, planted, type Planted } from './secrets.ts'

const runs = { numRuns: 1500 }

/** Neither as it was, nor without what separates its digits. */
function expectGone(output: string, { secret }: Planted): void {
  expect(output).not.toContain(secret)
  const digits = secret.replace(/\D/g, '')
  if (digits.length >= 7 && /^[\d +().-]+$/.test(secret)) expect(output.replace(/\D/g, '')).not.toContain(digits)
}

/** As most languages but this one write it. */
function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[^\x00-\x7f]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

const sentence = fc
  .array(fc.constantFrom('load', 'was', 'sent', 'to', 'carrier', 'failed:', 'because', 'of', 'Ünïcode', '—'), {
    maxLength: 6,
  })
  .map((words) => words.join(' '))

const text = fc
  .tuple(sentence, planted, around, sentence)
  .map(([before, it, [open, close], after]) => ({ planted: it, text: `${before} ${open}${it.text}${close} ${after}` }))

describe('a secret', () => {
  test('is nowhere in a redacted text, whatever stands around it', () => {
    fc.assert(
      fc.property(text, ({ planted: it, text: given }) => expectGone(redactText(given), it)),
      runs,
    )
  })

  test('is nowhere in a redacted text, when it begins or ends a line of JSON inside of JSON', () => {
    const gap = fc.constantFrom('\n', '\t', '\r\n', '\u2028', 'é')
    const depth = fc.integer({ min: 1, max: 3 })
    fc.assert(
      fc.property(planted, gap, depth, (it, around, levels) => {
        let given = `a${around}${it.text}${around}b`
        for (let level = 0; level < levels; level++) given = asciiJson({ body: given })
        fc.pre(given.includes(it.secret))
        expect(redactText(given)).not.toContain(it.secret)
      }),
      runs,
    )
  })

  test('is nowhere in a redacted value: in keys, in strings, nested, in errors', () => {
    const holder: fc.Arbitrary<(it: string) => unknown> = fc.constantFrom(
      (it) => it,
      (it) => ({ [it]: 1 }),
      (it) => [1, [it]],
      (it) => new Map([[it, { note: it }]]),
      (it) => new Set([it]),
      (it) => new Error(it),
      (it) => new Error('x', { cause: new Error(it) }),
      (it) => new AggregateError([new Error(it)], it),
      (it) => Object.assign(new Error('x'), { detail: it, code: it }),
      (it) => ({ toJSON: () => ({ it }) }),
    )
    fc.assert(
      fc.property(text, holder, fc.jsonValue({ maxDepth: 2 }), ({ planted: it, text: given }, hold, beside) => {
        const output = redact({ beside, here: { deeper: hold(given) } })
        expectGone(JSON.stringify(output), it)
        for (const said of stringsIn(output)) expectGone(said, it)
      }),
      runs,
    )
  })

  test('is nowhere in a redacted error', () => {
    fc.assert(
      fc.property(text, ({ planted: it, text: given }) => {
        const error = Object.assign(new TypeError(given), { code: given, name: given })
        expectGone(JSON.stringify([redactError(error), redactError(given), redactError({ given })]), it)
      }),
      { numRuns: 500 },
    )
  })

  test('is found behind full-width characters, foreign digits and invisible characters', () => {
    const disguise = fc.constantFrom(
      (it: string) => it.replace(/[!-~]/g, (c) => String.fromCharCode(c.charCodeAt(0) + 0xfee0)),
      (it: string) => it.replace(/\d/g, (c) => String.fromCharCode(c.charCodeAt(0) - 48 + 0x660)),
      (it: string) => it.replace(/./g, '$&\u200b'),
      (it: string) => it.replaceAll('-', '\u2011').replaceAll(' ', '\u00a0'),
    )
    fc.assert(
      fc.property(planted, disguise, (it, hide) => {
        expect(redactText(`say ${hide(it.text)}`)).not.toContain(hide(it.secret))
      }),
      { numRuns: 500 },
    )
  })

  test('is not half there when the cut goes through it', () => {
    fc.assert(
      fc.property(card, fc.integer({ min: 0, max: 400 }), (number, before) => {
        const output = JSON.stringify(
          redact({ a: `${'x'.repeat(before)} ${number} ${'y'.repeat(400)}` }, { limit: 256 }),
        )
        expect(output).not.toContain(number.slice(0, 6))
      }),
      { numRuns: 500 },
    )
  })
})

describe('what is no secret', () => {
  test('comes out as it went in, alone and in a sentence', () => {
    fc.assert(
      fc.property(harmless, harmless, (one, two) => {
        expect(redactText(one)).toBe(one)
        expect(redactText(`failed for ${one}, then ${two}; see log`)).toBe(`failed for ${one}, then ${two}; see log`)
        expect(redact({ trace_id: one, list: [two] })).toEqual({ trace_id: one, list: [two] })
      }),
      { numRuns: 3000 },
    )
  })
})

describe('redaction', () => {
  const anything = fc.oneof(
    fc.string({ maxLength: 80 }),
    fc.string({ unit: 'grapheme', maxLength: 60 }),
    text.map((it) => it.text),
    fc.array(fc.constantFrom(...hostileParts()), { maxLength: 25 }).map((parts) => parts.join('')),
  )

  test('changes nothing the second time', () => {
    fc.assert(
      fc.property(anything, (given) => {
        const once = redactText(given)
        expect(redactText(once)).toBe(once)
      }),
      { numRuns: 4000 },
    )
    fc.assert(
      fc.property(
        fc.dictionary(anything, fc.oneof(anything, fc.integer(), fc.array(anything, { maxLength: 3 }))),
        (it) => {
          const once = redact(it, { limit: 1e6 })
          expect(redact(once, { limit: 1e6 })).toEqual(once)
        },
      ),
      { numRuns: 500 },
    )
  })

  test('a list whose first item only looks like a name once it is shorter', () => {
    const list = [`"token":${'[redacted:email]'.repeat(4)}"token":`, 'plain']
    const once = redact(list)
    expect(redact(once)).toEqual(once)
  })

  test('never throws, never changes what it was given, and stays within the limit', () => {
    const value = fc.anything({
      withBigInt: true,
      withBoxedValues: true,
      withDate: true,
      withMap: true,
      withNullPrototype: true,
      withObjectString: true,
      withSet: true,
      withSparseArray: true,
      withTypedArray: true,
      stringUnit: 'grapheme',
    })
    fc.assert(
      fc.property(value, fc.integer({ min: 256, max: 2000 }), (it, limit) => {
        const before = fc.stringify(it)
        const output = JSON.stringify(redact(it, { limit }))
        expect(fc.stringify(it)).toBe(before)
        expect(Buffer.byteLength(output)).toBeLessThanOrEqual(limit)
      }),
      runs,
    )
  })
})

function hostileParts(): string[] {
  return (
    `[redacted:email]|[redacted:|]|password=|"token":|"|'|\\|{|[|}| |,|&|:|=|@|.|a|Zz9|-|+|1|415|555|0100|4111|1111|` +
    `://|http://u:|Bearer |Cookie: |eyJhbGciOi|.eyJzdWIi|-----BEGIN |-----END |Key (ssn)=(|)|%40|\n|sk_live_|DE89|12`
  ).split('|')
}

function stringsIn(value: Json): string[] {
  if (typeof value === 'string') return [value]
  if (typeof value !== 'object' || value === null) return []
  return [...Object.keys(value), ...Object.values(value).flatMap(stringsIn)]
}
