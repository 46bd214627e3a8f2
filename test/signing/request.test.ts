import { createHmac, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { sha256, signRequest, verifySignature, type ReceivedHeaders, type Verdict } from '../../src/signing/request.ts'

const now = new Date('2026-11-20T09:30:00.000Z')
const secret = 'a secret of the door'
const base = { keyId: 'ops', secret, method: 'POST', path: '/v1/tasks?a=1', body: '{"a":1}', now }
const keys = (id: string): readonly string[] => (id === 'ops' ? [secret] : [])

function signed(change: Partial<Parameters<typeof signRequest>[0]> = {}) {
  return signRequest({ ...base, nonce: randomBytes(16), ...change })
}

function verify(
  headers: ReceivedHeaders,
  change: Partial<Omit<Parameters<typeof verifySignature>[0], 'headers'>> = {},
): Verdict {
  return verifySignature({ headers, method: base.method, path: base.path, body: base.body, now, keys, ...change })
}

test('a signed request verifies, and the verdict names its key, nonce and timestamp', () => {
  const headers = signed({ nonce: Uint8Array.from({ length: 16 }, (_, index) => index) })
  expect(verify(headers)).toEqual({
    kind: 'ok',
    keyId: 'ops',
    nonce: 'AAECAwQFBgcICQoLDA0ODw',
    timestamp: now.getTime() / 1000,
  })
})

test('the signature of the example in the documentation is right', () => {
  const page = readFileSync(new URL('../../docs/signed-requests.md', import.meta.url), 'utf8')
  const cell = (name: string) => new RegExp(`^\\| ${name} +\\| \`([^\`]+)\``, 'm').exec(page)?.[1] ?? ''
  const headers = signRequest({
    keyId: 'example',
    secret: cell('secret'),
    method: cell('method'),
    path: cell('path'),
    body: cell('body'),
    now: new Date(Number(cell('timestamp')) * 1000),
    nonce: Buffer.from(cell('nonce'), 'base64url'),
  })
  expect(headers['X-Transbot-Signature']).toBe(cell('signature'))
})

test('whatever is signed verifies, and with any one part changed it does not', () => {
  const printable = fc.stringMatching(/^\/[!-"$-~]{0,40}$/)
  const request = fc.record({
    method: fc.constantFrom('GET', 'POST', 'PUT', 'PATCH', 'DELETE'),
    path: printable,
    body: fc.uint8Array({ maxLength: 200 }),
    secret: fc.string({ minLength: 1 }),
  })
  fc.assert(
    fc.property(request, request, (one, other) => {
      const headers = signed(one)
      const check = (change: Partial<typeof one>) => {
        const received = { ...one, ...change }
        return verify(headers, { ...received, keys: () => [received.secret] }).kind
      }
      expect(check({})).toBe('ok')
      if (one.method !== other.method) expect(check({ method: other.method })).toBe('mismatch')
      if (one.path !== other.path) expect(check({ path: other.path })).toBe('mismatch')
      if (sha256(one.body) !== sha256(other.body)) expect(check({ body: other.body })).toBe('mismatch')
      if (differentKeys(one.secret, other.secret)) expect(check({ secret: other.secret })).toBe('mismatch')
    }),
  )
})

/** HMAC fills secrets up with zeros, so a few different texts are the same key. */
function differentKeys(one: string, other: string): boolean {
  return !createHmac('sha256', one).digest().equals(createHmac('sha256', other).digest())
}

test('a changed key id, timestamp or nonce does not verify', () => {
  const headers = signed()
  const everyKey = () => [secret]
  const later = String(Number(headers['X-Transbot-Timestamp']) + 1)
  const other = randomBytes(16).toString('base64url')
  expect(verify({ ...headers, 'X-Transbot-Key': 'other' }).kind).toBe('unknown_key')
  expect(verify({ ...headers, 'X-Transbot-Timestamp': later }, { keys: everyKey }).kind).toBe('mismatch')
  expect(verify({ ...headers, 'X-Transbot-Nonce': other }, { keys: everyKey }).kind).toBe('mismatch')
})

test('the body may be given as its hash', () => {
  const headers = signed()
  const received = { headers, method: base.method, path: base.path, now, keys }
  expect(verifySignature({ ...received, bodySha256: sha256(base.body) }).kind).toBe('ok')
  expect(verifySignature({ ...received, bodySha256: sha256('') }).kind).toBe('mismatch')
  expect(verifySignature({ ...received, bodySha256: sha256(base.body).toUpperCase() })).toEqual({
    kind: 'malformed',
    part: 'body',
  })
})

test('five minutes are accepted in both directions, a millisecond more is not', () => {
  const headers = signed()
  const at = (ms: number) => verify(headers, { now: new Date(now.getTime() + ms) })
  expect(at(300_000).kind).toBe('ok')
  expect(at(300_001)).toEqual({ kind: 'stale', keyId: 'ops', byMs: 300_001 })
  expect(at(-300_000).kind).toBe('ok')
  expect(at(-300_001)).toEqual({ kind: 'future', keyId: 'ops', byMs: 300_001 })
})

test('an old request with a wrong signature is a mismatch: only the holder of the secret hears about the clock', () => {
  const headers = signed({ secret: 'another' })
  expect(verify(headers, { now: new Date(now.getTime() + 900_000) }).kind).toBe('mismatch')
})

test.each(['X-Transbot-Signature', 'X-Transbot-Key', 'X-Transbot-Timestamp', 'X-Transbot-Nonce'] as const)(
  'without %s it is missing, twice it is malformed, in any spelling of its name',
  (header) => {
    const headers = signed()
    const value = headers[header]
    const malformed = { kind: 'malformed', part: header }
    expect(verify({ ...headers, [header]: undefined })).toEqual({ kind: 'missing', header })
    expect(verify({ ...headers, [header]: [value] })).toEqual(malformed)
    expect(verify({ ...headers, [header]: [value, value] })).toEqual(malformed)
    expect(verify({ ...headers, [header.toLowerCase()]: value })).toEqual(malformed)
    expect(verify({ ...headers, [header]: `${value}, ${value}` })).toEqual(malformed)
    const joined = new Headers(headers)
    joined.append(header, value)
    expect(verify(joined)).toEqual(malformed)
    expect(verify(new Headers(headers)).kind).toBe('ok')
  },
)

test.each([
  ['X-Transbot-Signature', ['', 'v2=', 'v1=' + 'a'.repeat(64), 'v2=' + 'A'.repeat(64), 'v2=' + 'a'.repeat(63)]],
  ['X-Transbot-Signature', ['v2=' + 'a'.repeat(64) + ',', `v2=${'a'.repeat(64)}\n`, 'v2=' + 'a'.repeat(66)]],
  [
    'X-Transbot-Signature',
    [
      Array(5)
        .fill(`v2=${'a'.repeat(64)}`)
        .join(','),
    ],
  ],
  ['X-Transbot-Key', ['', ' ops', 'ops\n', 'a'.repeat(65), '-ops', 'öps', '../ops']],
  ['X-Transbot-Timestamp', ['', '+1780000000', '-1', '01780000000', ' 1780000000', '1e9', '1780000000.0', '0x10', '٣']],
  ['X-Transbot-Nonce', ['', 'short', 'AAECAwQFBgcICQoLDA0ODw==', 'AAECAwQFBgcICQoLDA0OD+', 'AAECAwQFBgcICQoLDA0ODx']],
] as const)('values of %s that could be written in another way are malformed: %j', (header, values) => {
  for (const value of values) {
    expect(verify({ ...signed(), [header]: value }), value).toEqual({ kind: 'malformed', part: header })
  }
})

test('no line break can get into what is signed', () => {
  const method = { kind: 'malformed', part: 'method' }
  const path = { kind: 'malformed', part: 'path' }
  expect(verify(signed(), { method: 'POST\n' })).toEqual(method)
  expect(verify(signed(), { method: 'post' })).toEqual(method)
  for (const odd of ['/a\n', '/a b', 'a', '', '/a#b', '/ä', '*', 'http://h/a']) {
    expect(verify(signed(), { path: odd }), odd).toEqual(path)
    expect(() => signed({ path: odd }), odd).toThrow(/path/)
  }
  expect(() => signed({ method: 'POST\nx' })).toThrow(/method/)
  expect(() => signed({ keyId: 'a b' })).toThrow(/key id/)
  expect(() => signed({ nonce: randomBytes(15) })).toThrow(/nonce/)
  expect(() => signed({ secret: '' })).toThrow(/secret/)
  expect(() => signed({ now: new Date(-1) })).toThrow(/time/)
})

test('while a secret is replaced, either side may be first', () => {
  const both = signed({ secret: ['the new one', secret] })
  expect(both['X-Transbot-Signature'].split(',')).toHaveLength(2)
  expect(verify(both).kind).toBe('ok')
  expect(verify(signed(), { keys: () => ['the new one', secret] }).kind).toBe('ok')
  expect(verify(signed({ secret: 'the new one' }), { keys: () => ['the new one', secret] }).kind).toBe('ok')
  expect(verify(both, { keys: () => ['a third one'] }).kind).toBe('mismatch')
})

test('an unknown key is refused even when it is signed with the secret that stands in for it, and an empty secret is none', () => {
  const source = readFileSync(new URL('../../src/signing/request.ts', import.meta.url), 'utf8')
  const standIn = /nobodysSecret = '([^']+)'/.exec(source)?.[1] ?? ''
  expect(standIn).not.toBe('')
  expect(verify(signed({ keyId: 'nobody', secret: standIn })).kind).toBe('unknown_key')
  expect(verify(signed(), { keys: () => [''] }).kind).toBe('unknown_key')
})
