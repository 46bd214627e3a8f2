import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseValue } from '../../src/flags/value.ts'

const flag = { key: 'a.json', type: 'json' } as const

test.each([
  ['a number that is no number here', '{"a":1e400}'],
  ['a long whole number', '12345678901234567890'],
  ['a long fraction', '[0.1000000000000000055511151231257827]'],
  ['a key that gets lost', '{"a":{"__proto__":{"b":1}}}'],
  ['NUL', '{"a":"\\u0000"}'],
  ['NUL in a key', '{"\\u0000":1}'],
  ['half a character', '["\\ud800"]'],
  ['33 levels', '['.repeat(33) + ']'.repeat(33)],
  ['thousands of levels', '['.repeat(8_000) + ']'.repeat(8_000)],
])('JSON that would be stored otherwise than typed is turned away: %s', (_, text) => {
  expect(() => parseValue(flag, text)).toThrow(expect.objectContaining({ code: 'INPUT_INVALID', exit: 2 }))
})

test.each([
  '1.50',
  '-0',
  '1e3',
  '1E+3',
  '0.1',
  '-12.5e-1',
  '9007199254740991',
  '"1e400 \\" 12345678901234567890"',
  '{}',
])('JSON that keeps what it says is taken: %s', (text) => expect(parseValue(flag, text)).toEqual(JSON.parse(text)))

test('whatever JSON.stringify writes is taken', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const text = JSON.stringify(value)
      fc.pre(!text.includes('__proto__') && !text.includes('\\u0000') && text.length < 10_000)
      expect(parseValue(flag, text)).toEqual(JSON.parse(text))
    }),
  )
})
