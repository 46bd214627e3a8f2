import fc from 'fast-check'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { isLoopbackHost, parseProxies, rateAddress, trustIn } from '../../src/door/address.ts'
import { answerTo, DoorRefusal, rawAnswer } from '../../src/door/answers.ts'
import { depthOf } from '../../src/depth.ts'
import { parseBody, readShape, tasksBody } from '../../src/door/body.ts'
import { createBuckets } from '../../src/door/buckets.ts'
import { parseKeys, readKeys } from '../../src/door/keys.ts'
import { parseSources } from '../../src/door/sources.ts'
import { errorTable, isErrorCode, TmsError, type ErrorCode } from '../../src/errors.ts'

const secret = 's3cret-'.repeat(6)

describe('keys', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tms-keys-'))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  test('are read from lines and from JSON alike', () => {
    const lines = parseKeys(`# ours\n\nn8n-1=${secret}\nn8n-2 = ${secret}=\r\n`, 'here')
    const json = parseKeys(JSON.stringify({ 'n8n-1': secret, 'n8n-2': `${secret}=` }), 'here')
    expect(lines).toEqual(json)
    expect([...lines.keys()]).toEqual(['n8n-1', 'n8n-2'])
  })

  test.each([
    ['nothing', ''],
    ['a line without a secret', secret],
    ['a short secret', 'a=short-secret'],
    ['a secret with a space', `a=${secret} ${secret}`],
    ['an id with a space', `a b=${secret}`],
    ['an id twice', `a=${secret}\na=${secret}2`],
    ['broken JSON', `{"a": "${secret}`],
    ['JSON of something else', `{"a": ["${secret}"]}`],
  ])('%s is refused and not quoted', (_, text) => {
    const error = failure(() => parseKeys(text, 'door.keys'))
    expect(error).toMatchObject({ code: 'CONFIG_INVALID', message: expect.stringContaining('door.keys') })
    expect(said(error)).not.toContain('s3cret')
    expect(said(error)).not.toContain('short-secret')
  })

  test('a file that others can read is refused', async () => {
    const path = join(folder, 'door.keys')
    await writeFile(path, `a=${secret}\n`, { mode: 0o600 })
    expect((await readKeys({ kind: 'file', path })).get('a')?.secret).toBe(secret)
    for (const mode of [0o640, 0o604, 0o620, 0o602, 0o644]) {
      await chmod(path, mode)
      await expect(readKeys({ kind: 'file', path })).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
    }
    const gone = readKeys({ kind: 'file', path: join(folder, 'none') })
    await expect(gone).rejects.toMatchObject({ code: 'FILE_UNREADABLE' })
  })

  test('come from a command, whose words are never shown when it fails', async () => {
    const keys = await readKeys({ kind: 'command', command: `printf '%s' 'a=${secret}'` })
    expect(keys.get('a')?.secret).toBe(secret)
    const failed = await readKeys({ kind: 'command', command: `echo ${secret}; echo ${secret} >&2; exit 3` }).catch(
      (error: unknown) => error,
    )
    expect(failed).toMatchObject({ code: 'TOOL_FAILED', why: 'it ended with 3' })
    expect(said(failed)).not.toContain('s3cret')
  })
})

describe('addresses', () => {
  test.each([
    ['192.0.2.7', '192.0.2.7'],
    ['::ffff:192.0.2.7', '192.0.2.7'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['2001:db8:0:0:ffff::2', '2001:db8:0:0::/64'],
    ['2001:0DB8:0001::', '2001:db8:1:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['64:ff9b::192.0.2.1', '64:ff9b:0:0::/64'],
    ['192.0.2.7:5678', '192.0.2.7'],
    ['[2001:db8::1]:443', '2001:db8:0:0::/64'],
    ['[2001:db8::1]', '2001:db8:0:0::/64'],
    ['[::ffff:192.0.2.7]:443', '192.0.2.7'],
    // A colon before digits that is no port.
    ['2001:db8::1:443', '2001:db8:0:0::/64'],
    ['192.0.2.7:', 'peer'],
    ['192.0.2.7:http', 'peer'],
    ['[192.0.2.7', 'peer'],
    ['example.com:443', 'peer'],
    ['<script>', 'peer'],
    ['', 'peer'],
    [undefined, 'peer'],
  ])('%s counts for %s', (address, subject) => {
    expect(rateAddress(address, 'peer')).toBe(subject)
  })

  test('of one /64 count together, and of two apart', () => {
    const group = fc.integer({ min: 0, max: 0xffff }).map((n) => n.toString(16))
    const half = fc.tuple(group, group, group, group).map((groups) => groups.join(':'))
    fc.assert(
      fc.property(half, half, half, half, (net, other, a, b) => {
        expect(rateAddress(`${net}:${a}`, 'x')).toBe(rateAddress(`${net}:${b}`, 'x'))
        fc.pre(net !== other)
        expect(rateAddress(`${net}:${a}`, 'x')).not.toBe(rateAddress(`${other}:${a}`, 'x'))
      }),
    )
  })

  test('only addresses and real networks may be trusted', () => {
    expect(parseProxies(['10.0.0.0/8', ' ::1 ', '192.0.2.1'])).toEqual(['10.0.0.0/8', '::1', '192.0.2.1'])
    for (const wrong of ['0.0.0.0/0', '::/0', 'loopback', '10.0.0.0/33', '10.0.0.0/8/8', '', '10.0.0']) {
      expect(failure(() => parseProxies([wrong]))).toMatchObject({ code: 'USAGE' })
    }
  })

  test('a proxy is known by its address, whatever its port', () => {
    const trusted = trustIn(['10.0.0.0/8', '2001:db8:1::/48', '192.0.2.1'])
    for (const entry of ['10.1.2.3', '10.1.2.3:5678', '::ffff:10.1.2.3', '[2001:db8:1::9]:443', '192.0.2.1:1'])
      expect([entry, trusted(entry)]).toEqual([entry, true])
    for (const entry of ['11.0.0.1:10', '192.0.2.2', '[2001:db8:2::9]:443', '10.1.2', 'unknown', ''])
      expect([entry, trusted(entry)]).toEqual([entry, false])
  })

  test('loopback is known by address', () => {
    expect(['127.0.0.1', '127.1.2.3', '::1', 'localhost'].map(isLoopbackHost)).toEqual([true, true, true, true])
    expect(['0.0.0.0', '::', '10.0.0.1', '127.example.com'].map(isLoopbackHost)).toEqual([false, false, false, false])
  })
})

describe('buckets', () => {
  test('give what they hold, fill with time, and never more than they hold', () => {
    const buckets = createBuckets({ capacity: 3, perSecond: 1 })
    const take = (seconds: number) => buckets.take('a', seconds * 1000)
    expect([take(0), take(0), take(0), take(0)]).toEqual([true, true, true, false])
    expect([take(0.5), take(1), take(1)]).toEqual([false, true, false])
    expect([take(100), take(100), take(100), take(100)]).toEqual([true, true, true, false])
    expect(buckets.take('b', 0)).toBe(true)
    buckets.empty('b', 0)
    expect(buckets.take('b', 0)).toBe(false)
  })

  test('a clock that goes back gives nothing', () => {
    const buckets = createBuckets({ capacity: 1, perSecond: 1 })
    expect([buckets.take('a', 10_000), buckets.take('a', 0), buckets.take('a', 500)]).toEqual([true, false, false])
  })

  test('many strangers do not fill the memory: the ones least recently seen are forgotten', () => {
    const buckets = createBuckets({ capacity: 1, perSecond: 0 }, 2)
    expect(['a', 'b', 'b', 'c', 'b', 'a'].map((key) => buckets.take(key, 0))).toEqual([
      true,
      true,
      false,
      true,
      false,
      true,
    ])
  })
})

describe('bodies', () => {
  test('any JSON of usual depth comes through as it is, and no other text does', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 20 }), (value) => {
        const text = JSON.stringify(value)
        fc.pre(!/\\u(0000|d[89a-f])/.test(text))
        expect(parseBody(Buffer.from(text))).toEqual(JSON.parse(text))
      }),
    )
  })

  test('arbitrary bytes are a refusal and never a crash', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          parseBody(bytes)
        } catch (error) {
          expect(error).toMatchObject({ code: 'INPUT_INVALID' })
        }
      }),
    )
  })

  test('depth is counted outside of texts', () => {
    expect(depthOf('{"[[[[": "\\"[[", "a": [{}]}')).toBe(3)
    expect(() => parseBody(Buffer.from(`${'['.repeat(64)}${']'.repeat(64)}`))).not.toThrow()
    expect(() => parseBody(Buffer.from(`${'['.repeat(65)}${']'.repeat(65)}`))).toThrow()
  })

  test('what Postgres has no text for is refused, and its escaped spelling is not', () => {
    for (const text of ['"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '{"\\u0000": 1}', '"\\\\\\u0000"']) {
      expect(() => parseBody(Buffer.from(text))).toThrow()
    }
    for (const text of ['"\\ud83d\\ude00"', '"\\\\u0000"', '"\\\\ud800"', '"\\u0041"']) {
      expect(parseBody(Buffer.from(text))).toBe(JSON.parse(text))
    }
  })

  test('a number that parsing would change is refused, and those that are only written otherwise are not', () => {
    for (const text of ['1e400', '-1E400', '12345678901234567890123', '[-9007199254740993]', '{"\\"": [0.5, 2e999]}']) {
      expect(failure(() => parseBody(Buffer.from(text)))).toMatchObject({ code: 'INPUT_INVALID', reason: 'number' })
    }
    for (const text of [
      '0.1',
      '1.50',
      '1e3',
      '-0',
      '9007199254740991',
      '"1e400"',
      '{"\\"1e400": "\\\\"}',
      '[1,-2.5E-3]',
    ]) {
      expect(parseBody(Buffer.from(text))).toEqual(JSON.parse(text))
    }
  })

  test('a wrong shape is named by its place, not by what stands there', () => {
    const wrong = { tenant: 'acme', tasks: [{ function: 'demo.one', priority: 'Mr. Smith' }] }
    const error = failure(() => readShape(tasksBody, wrong))
    expect(error).toMatchObject({ detail: 'At tasks.0.priority: invalid_type.' })
  })
})

describe('webhook sources', () => {
  test('say what each webhook becomes', () => {
    const text = 'sources:\n  carrier:\n    function: loads.updated\n    tenant: acme\n    key: deliveryId\n'
    const source = { function: 'loads.updated', tenant: 'acme', key: 'deliveryId', priority: 0 }
    expect(parseSources('w.yaml', text).get('carrier')).toEqual(source)
  })

  test('a mistake is named by its line', () => {
    const text = 'sources:\n  carrier:\n    function: loads.updated\n    tenants: acme\n'
    const error = failure(() => parseSources('w.yaml', text))
    expect(error).toMatchObject({ code: 'POLICY_INVALID', message: expect.stringMatching(/^w\.yaml:\d+:\d+/) })
  })
})

describe('answers', () => {
  const now = new Date('2026-05-01T10:00:48Z')

  test('whatever goes wrong inside, nothing of its words gets out', () => {
    const codes = Object.keys(errorTable).filter(isErrorCode)
    const words = 'tms.logins of acme at /var/lib: pw=hunter2'
    const problems = [
      ...codes.map((code) => new TmsError({ code, what: words, why: words, next: [words] })),
      new Error(words),
      { code: words },
      words,
      null,
    ]
    for (const problem of problems) {
      const answer = answerTo(problem, now)
      expect(JSON.stringify(answer.body)).not.toMatch(/hunter2|logins|acme/)
      expect(answer.body.error.message).not.toBe('')
      expect(answer.status).toBeGreaterThanOrEqual(400)
      expect(rawAnswer(problem, now)).not.toMatch(/hunter2|logins|acme/)
    }
  })

  test("the database's troubles are 503 and ours are 500, whatever their name", () => {
    const statusOf = (code: 'DB_AUTH_FAILED' | 'TOKEN_REJECTED' | 'CREDENTIAL_EXPIRED' | 'BUG') =>
      answerTo(new TmsError({ code, what: 'x', why: 'x', next: [] }), now)
    expect(statusOf('DB_AUTH_FAILED')).toMatchObject({ status: 503, code: 'UNAVAILABLE', ours: true })
    expect(statusOf('TOKEN_REJECTED')).toMatchObject({ status: 503, code: 'UNAVAILABLE' })
    // The door's own credential: of a key's end the database says SIGNATURE_INVALID.
    expect(statusOf('CREDENTIAL_EXPIRED')).toMatchObject({ status: 500, code: 'INTERNAL', ours: true })
    expect(statusOf('BUG')).toMatchObject({ status: 500, code: 'INTERNAL' })
  })

  test.each<readonly [ErrorCode, string | undefined, string | undefined]>([
    ['BUDGET_EXCEEDED', '2026-05-02T00:00:00.000000Z', '50352'],
    ['REPLAY_LIMIT', '2026-05-01T10:04:00.500000Z', '193'],
    ['BLOCKED', '2026-05-01T09:59:00.000000Z', '1'],
    ['RATE_LIMITED', '2026-05-01T10:01:00.000000Z', '12'],
    // Nobody knows when replays are allowed again, and a task's budget never comes back.
    ['REPLAY_LIMIT', undefined, undefined],
    ['BUDGET_EXCEEDED', undefined, undefined],
  ])('%s until %s is told to come again after %s seconds', (code, againAt, seconds) => {
    const problem = new TmsError({ code, what: 'x', why: 'x', next: [], againAt })
    expect(answerTo(problem, now).headers['retry-after']).toBe(seconds)
  })

  test('too many at once are told when to come again', () => {
    expect(answerTo(new DoorRefusal('RATE_LIMITED', 'stranger'), now).headers).toEqual({ 'retry-after': '12' })
  })
})

function failure(work: () => unknown): unknown {
  try {
    work()
  } catch (error) {
    return error
  }
  throw new Error('it did not fail')
}

function said(error: unknown): string {
  const { message, stack, why, next, cause } = error as Partial<TmsError>
  return JSON.stringify([message, stack, why, next, String(cause)])
}
