import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  childOf,
  formatTraceparent,
  newTraceparent,
  parseTraceparent,
  sampledAt,
  systemRandom,
} from '../../src/tracing/traceparent.ts'

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736'
const spanId = '00f067aa0ba902b7'
const hex = (digits: number) =>
  fc.string({ unit: fc.nat(15).map((digit) => digit.toString(16)), minLength: digits, maxLength: digits })
const traceparents = fc
  .record({ traceId: hex(32), spanId: hex(16), sampled: fc.boolean() })
  .filter((one) => !/^0+$/.test(one.traceId) && !/^0+$/.test(one.spanId))

describe('parseTraceparent', () => {
  it.each([
    ['sampled', `00-${traceId}-${spanId}-01`, true],
    ['not sampled', `00-${traceId}-${spanId}-00`, false],
    ['with flags of a later level', `00-${traceId}-${spanId}-03`, true],
    ['with every flag but sampled', `00-${traceId}-${spanId}-fe`, false],
    ['of a later version', `cc-${traceId}-${spanId}-01`, true],
    ['of a later version with more fields', `cc-${traceId}-${spanId}-01-what-the-future-will-be-like`, true],
  ])('takes one that is %s', (_what, text, sampled) => {
    expect(parseTraceparent(text)).toEqual({ traceId, spanId, sampled })
  })

  it.each([
    ['empty', ''],
    ['of version ff', `ff-${traceId}-${spanId}-01`],
    ['of version 00 with more fields', `00-${traceId}-${spanId}-01-more`],
    ['of version 00 with a dash at the end', `00-${traceId}-${spanId}-01-`],
    ['of a later version with more characters and no dash', `cc-${traceId}-${spanId}-01.what`],
    ['in capitals', `00-${traceId.toUpperCase()}-${spanId}-01`],
    ['with a span id in capitals', `00-${traceId}-${spanId.toUpperCase()}-01`],
    ['with flags in capitals', `00-${traceId}-${spanId}-0A`],
    ['with a version in capitals', `CC-${traceId}-${spanId}-01`],
    ['with a trace id of zeros', `00-${'0'.repeat(32)}-${spanId}-01`],
    ['with a span id of zeros', `00-${traceId}-${'0'.repeat(16)}-01`],
    ['with a short trace id', `00-${traceId.slice(1)}-${spanId}-01`],
    ['with a long span id', `00-${traceId}-${spanId}0-01`],
    ['with one digit of flags', `00-${traceId}-${spanId}-1`],
    ['without flags', `00-${traceId}-${spanId}`],
    ['with letters that are no hex', `00-${traceId.replace('4', 'g')}-${spanId}-01`],
    ['two in one header', `00-${traceId}-${spanId}-01, 00-${traceId}-${spanId}-01`],
    ['with a line break at the end', `00-${traceId}-${spanId}-01\n`],
    ['with a blank before', ` 00-${traceId}-${spanId}-01`],
  ])('refuses one that is %s', (_what, text) => {
    expect(parseTraceparent(text)).toBeNull()
  })

  it('reads back what was formatted', () => {
    fc.assert(
      fc.property(traceparents, (one) => {
        expect(parseTraceparent(formatTraceparent(one))).toEqual(one)
      }),
    )
  })

  it('takes no text that the standard forbids, whatever is done to a valid one', () => {
    const change = fc.record({ at: fc.nat(54), put: fc.string({ unit: 'binary', maxLength: 2 }) })
    fc.assert(
      fc.property(traceparents, change, (one, { at, put }) => {
        const valid = formatTraceparent(one)
        const text = valid.slice(0, at) + put + valid.slice(at + 1)
        const parsed = parseTraceparent(text)
        if (parsed === null) return
        expect(text).toMatch(/^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}/)
        expect(text.slice(3, 52)).toBe(`${parsed.traceId}-${parsed.spanId}`)
      }),
    )
  })
})

describe('a new traceparent', () => {
  it('is valid even when the generator draws zeros', () => {
    const zeros = (bytes: number) => '00'.repeat(bytes)
    const text = formatTraceparent(newTraceparent(zeros, true))
    expect(parseTraceparent(text)).toEqual({
      traceId: `${'0'.repeat(31)}1`,
      spanId: `${'0'.repeat(15)}1`,
      sampled: true,
    })
  })

  it('is different each time, across refills of the pool', () => {
    const random = systemRandom()
    const made = Array.from({ length: 1000 }, () => newTraceparent(random, false))
    expect(new Set(made.map((one) => one.traceId)).size).toBe(1000)
    expect(new Set(made.map((one) => one.spanId)).size).toBe(1000)
    expect(made.map(formatTraceparent).every((text) => parseTraceparent(text) !== null)).toBe(true)
  })

  it('as a child keeps trace and decision and has a span id of its own', () => {
    const parent = { traceId, spanId, sampled: true }
    const child = childOf(parent, systemRandom())
    expect(child).toEqual({ traceId, spanId: expect.stringMatching(/^[0-9a-f]{16}$/), sampled: true })
    expect(child.spanId).not.toBe(spanId)
  })
})

describe('sampling', () => {
  it('keeps all at 100 and none at 0', () => {
    fc.assert(
      fc.property(hex(32), (id) => {
        expect(sampledAt(id, 100)).toBe(true)
        expect(sampledAt(id, 0)).toBe(false)
      }),
    )
  })

  it('keeps at a higher percentage whatever the lower one keeps', () => {
    const percent = fc.double({ min: 0, max: 100, noNaN: true })
    fc.assert(
      fc.property(hex(32), percent, percent, (id, a, b) => {
        if (sampledAt(id, Math.min(a, b))) expect(sampledAt(id, Math.max(a, b))).toBe(true)
      }),
    )
  })

  it('looks at the last 56 bits only, as other consistent samplers do', () => {
    const high = (rest: string) => `${rest}fd70a3d70a3d71`
    expect(sampledAt(high('0'.repeat(18)), 1)).toBe(true)
    expect(sampledAt(high('f'.repeat(18)), 1)).toBe(true)
    expect(sampledAt(`${'f'.repeat(18)}fd70a3d70a3000`, 1)).toBe(false)
  })

  it.each([1, 5, 50])('keeps about %i per cent', (percent) => {
    const random = systemRandom()
    const many = 100_000
    let kept = 0
    for (let i = 0; i < many; i++) if (sampledAt(newTraceparent(random, false).traceId, percent)) kept++
    // Eight standard deviations: once in the age of the universe by chance.
    const off = 8 * Math.sqrt(many * (percent / 100) * (1 - percent / 100))
    expect(Math.abs(kept - (many * percent) / 100)).toBeLessThan(off)
  })
})
