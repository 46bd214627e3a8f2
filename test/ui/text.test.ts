import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { commandLine, shellWord, wantsJson } from '../../src/ui/argv.ts'
import { toJson } from '../../src/ui/envelope.ts'
import { printable } from '../../src/ui/escape.ts'
import { redact } from '../../src/ui/redact.ts'
import { suggest } from '../../src/suggest.ts'
import { usageError } from '../../src/ui/usage.ts'
import { flagVariable } from '../../src/ui/variables.ts'

/** Any string, also ones that are no text: control characters, lone surrogates, marks that reorder what is read. */
const anyText = fc.string({
  unit: fc.oneof(
    fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }),
    fc.constantFrom('\u001b', '\u009b', '\ud800', '\u202e', '\n', '\r'),
  ),
})
const obeyed = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/

describe('printable', () => {
  test('leaves nothing that a terminal obeys', () => {
    fc.assert(fc.property(anyText, (text) => !obeyed.test(printable(text)) && printable(text).isWellFormed()))
  })

  test('shows what was there', () => {
    expect(printable('a\u001b[2Jb\nc\u202ed\ud800')).toBe('a\\u{1b}[2Jb\\nc\\u{202e}d\\u{d800}')
  })

  test('leaves ordinary text alone, in any script', () => {
    expect(printable('Zürich 東京 🚚 naïve')).toBe('Zürich 東京 🚚 naïve')
  })
})

describe('JSON', () => {
  test('holds the same value and no character that a terminal obeys', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const json = toJson({ text })
        // Lone surrogates are escaped by JSON.stringify and come back as they were.
        return !obeyed.test(json) && (JSON.parse(json) as { text: string }).text === text
      }),
    )
  })

  test('turns a BigInt into text, wherever it is', () => {
    expect(toJson({ a: [1n, { b: 2n ** 64n }] })).toBe('{"a":["1",{"b":"18446744073709551616"}]}')
  })
})

describe('redact', () => {
  test.each([
    ['postgres://ann:s3cret@db/tms', 'postgres://ann:********@db/tms'],
    ['connect to https://key:t0ken@host failed', 'connect to https://key:********@host failed'],
    ['password=hunter2 user=ann', 'password=******** user=ann'],
    ['{"token":"abc","n":1}', '{"token":"********","n":1}'],
    ['Bearer eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl is bad', 'Bearer ******** is bad'],
  ])('masks %s', (text, safe) => {
    expect(redact(text)).toBe(safe)
  })

  test('masks known secrets in any shape', () => {
    expect(redact('value "pa$$word" refused', ['pa$$word'])).toBe('value "********" refused')
  })

  test.each([
    'postgres://ann@db:5432/tms',
    'flag ops.tokenLimit is 5',
    'the password was rejected',
    'https://host/path?a=b',
  ])('leaves %s as it is', (text) => {
    expect(redact(text)).toBe(text)
  })
})

describe('suggestions', () => {
  const known = ['flags list', 'flags set', 'config show', 'whoami', 'status']

  test.each([
    ['flags lsit', 'flags list'],
    ['whoam', 'whoami'],
    ['stauts', 'status'],
    ['config shwo', 'config show'],
  ])('%s means %s', (typed, meant) => {
    expect(suggest(typed, known)).toBe(meant)
  })

  test.each(['xyzzy', 'deploy', ''])('%s means nothing known', (typed) => {
    expect(suggest(typed, known)).toBeNull()
  })
})

describe('the command to type again', () => {
  test('is quoted for a shell, with the addition before a double dash', () => {
    expect(commandLine('flags:set', ['a b', "it's", '--', '-x'], ['--confirm', 'a b'])).toBe(
      `tms flags set 'a b' 'it'\\''s' --confirm 'a b' -- -x`,
    )
  })

  test('forgets the consent of the first time', () => {
    expect(commandLine('db:reset', ['--confirm', 'old', '--confirm=older'], ['--confirm', 'new'])).toBe(
      'tms db reset --confirm new',
    )
  })

  test('survives a shell whatever the words are', () => {
    // What sh would make of it, for words in single quotes: the reverse of the quoting, for every string.
    const unquote = (word: string) => word.replace(/'\\''/g, '\0').replaceAll("'", '').replaceAll('\0', "'")
    fc.assert(fc.property(fc.string({ unit: 'grapheme' }), (word) => unquote(shellWord(word)) === word))
  })
})

test.each([
  [['--json'], {}, true],
  [['--', '--json'], {}, false],
  [[], { TMS_JSON: 'true' }, true],
  [[], { TMS_JSON: '0' }, false],
])('JSON is wanted by %j %j: %s', (argv, environment, wanted) => {
  expect(wantsJson(argv, environment)).toBe(wanted)
})

test('every flag has a variable except consent', () => {
  expect(flagVariable('call-limit')).toBe('TMS_CALL_LIMIT')
  expect(flagVariable('confirm')).toBeNull()
  expect(flagVariable('execute')).toBeNull()
  // Nor has what turns a rollout: it must be typed.
  expect(['next', 'off'].map(flagVariable)).toEqual([null, null])
})

test('a usage error carries nothing of what the parser threw', () => {
  const thrown = Object.assign(new Error('Missing 1 required arg:\nkey  the flag\nSee more help with --help'), {
    args: [{ name: 'key', description: 'the flag' }],
    parse: { home: '/home/ann' },
  })
  const error = usageError(thrown, 'flags get', [])
  expect(error).toMatchObject({ code: 'USAGE', message: 'Missing argument: key', why: 'key: the flag' })
  expect(error.cause).toBeUndefined()
})
