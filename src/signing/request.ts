import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { TmsError } from '../errors.ts'

/**
 * Signed requests, version 2. The sender proves that it knows a secret without sending it; the receiver learns that
 * method, path and body are what was signed, and when. docs/signed-requests.md is the specification.
 *
 * That a nonce works only once is not decided here: it needs a memory that all receivers share, so it is the database's.
 */

export const signatureHeaders = {
  signature: 'X-Transbot-Signature',
  key: 'X-Transbot-Key',
  timestamp: 'X-Transbot-Timestamp',
  nonce: 'X-Transbot-Nonce',
} as const

type Part = keyof typeof signatureHeaders
export type SignatureHeader = (typeof signatureHeaders)[Part]

/** How far the clocks of sender and receiver may be apart, in both directions. */
export const toleranceMs = 5 * 60_000

/** Both secrets of a rotation, and room to spare; without a limit one request could ask for thousands of comparisons. */
const mostSignatures = 4

const keyIdPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
/** No sign, no leading zero, no spaces; twelve digits are exact as a number. */
const timestampPattern = /^(0|[1-9]\d{0,11})$/
/** 16 to 64 bytes. */
const noncePattern = /^[A-Za-z0-9_-]{22,86}$/
const methodPattern = /^[A-Z]{1,20}$/
/** What a request line can carry: a line break in here would let one request pass for another. */
const pathPattern = /^\/[\x21\x22\x24-\x7e]*$/
const signaturePattern = /^v2=[0-9a-f]{64}$/
const hashPattern = /^[0-9a-f]{64}$/

export type SignedParts = {
  readonly method: string
  /** With the query, byte by byte as it is sent. */
  readonly path: string
  readonly timestamp: string
  readonly nonce: string
  /** SHA-256 of the body as lower-case hex; of nothing, when there is no body. */
  readonly bodySha256: string
}

/** The text that is signed. Each part is on a line of its own and none can contain a line break. */
export function signedText({ method, path, timestamp, nonce, bodySha256 }: SignedParts): string {
  return ['v2', timestamp, nonce, method, path, bodySha256].join('\n')
}

export type ToSign = {
  readonly keyId: string
  /** Two while a secret is being replaced: the receiver accepts whichever it knows. */
  readonly secret: string | readonly [string, ...string[]]
  readonly method: string
  readonly path: string
  readonly body: string | Uint8Array
  readonly now: Date
  /** 16 to 64 random bytes, never used before. */
  readonly nonce: Uint8Array
}

/** The headers that sign this request. Sending it again needs new ones: a nonce works once. */
export function signRequest(request: ToSign): Readonly<Record<SignatureHeader, string>> {
  const secrets = typeof request.secret === 'string' ? [request.secret] : request.secret
  const nonce = Buffer.from(request.nonce).toString('base64url')
  const timestamp = String(Math.floor(request.now.getTime() / 1000))
  if (!keyIdPattern.test(request.keyId)) throw unsignable('the key id', 'letters, digits, ".", "_" and "-", at most 64')
  if (secrets.length > mostSignatures) throw unsignable('the list of secrets', `at most ${mostSignatures}`)
  if (secrets.includes('')) throw unsignable('the secret', 'at least one character; 32 random bytes are right')
  if (!methodPattern.test(request.method)) throw unsignable('the method', 'capital letters, like POST')
  if (!pathPattern.test(request.path)) throw unsignable('the path', 'printable ASCII that starts with / and has no #')
  if (!noncePattern.test(nonce)) throw unsignable('the nonce', '16 to 64 bytes')
  if (!timestampPattern.test(timestamp)) throw unsignable('the time', 'a moment after 1970')
  const text = signedText({ ...request, timestamp, nonce, bodySha256: sha256(request.body) })
  return {
    [signatureHeaders.signature]: secrets.map((secret) => `v2=${hmac(secret, text).toString('hex')}`).join(','),
    [signatureHeaders.key]: request.keyId,
    [signatureHeaders.timestamp]: timestamp,
    [signatureHeaders.nonce]: nonce,
  }
}

function unsignable(what: string, takes: string): TmsError {
  return new TmsError({
    code: 'INPUT_INVALID',
    what: `this request can't be signed: ${what} is not usable`,
    why: `it takes ${takes}`,
    next: ['see docs/signed-requests.md'],
  })
}

/** As they came in. Node, fetch and plain objects spell names differently, so names are compared without case. */
export type ReceivedHeaders = Headers | Readonly<Record<string, string | readonly string[] | undefined>>

export type ToVerify = {
  readonly headers: ReceivedHeaders
  readonly method: string
  /** With the query, as it was received: `request.url` in Node. */
  readonly path: string
  readonly now: Date
  /** All secrets that are good for this key id now; none when it is unknown or revoked. */
  readonly keys: (keyId: string) => readonly string[]
} & ({ readonly body: string | Uint8Array } | { readonly bodySha256: string })

/**
 * `stale` and `future` are only said of requests whose signature is right: then it is the clock, or somebody repeats an
 * old request. To the outside all but `ok` must look the same.
 */
export type Verdict =
  | { readonly kind: 'ok'; readonly keyId: string; readonly nonce: string; readonly timestamp: number }
  | { readonly kind: 'missing'; readonly header: SignatureHeader }
  | { readonly kind: 'malformed'; readonly part: SignatureHeader | 'method' | 'path' | 'body' }
  | { readonly kind: 'unknown_key' }
  | { readonly kind: 'mismatch'; readonly keyId: string }
  | { readonly kind: 'stale' | 'future'; readonly keyId: string; readonly byMs: number }

/** Whether the request was signed with a secret of its key, unchanged, and within five minutes of `now`. */
export function verifySignature(request: ToVerify): Verdict {
  const read = readHeaders(request.headers)
  if (!('values' in read)) return read
  const { signature, key, timestamp, nonce } = read.values
  const signatures = signature.split(',')
  const { method, path } = request
  const bodySha256 = 'bodySha256' in request ? request.bodySha256 : sha256(request.body)
  // Several spellings of the same bytes would be several nonces, and a hole in every list of seen ones.
  const canonicalNonce = Buffer.from(nonce, 'base64url').toString('base64url') === nonce
  const odd =
    signatures.length > mostSignatures || !signatures.every((each) => signaturePattern.test(each))
      ? signatureHeaders.signature
      : !keyIdPattern.test(key)
        ? signatureHeaders.key
        : !timestampPattern.test(timestamp)
          ? signatureHeaders.timestamp
          : !noncePattern.test(nonce) || !canonicalNonce
            ? signatureHeaders.nonce
            : !methodPattern.test(method)
              ? 'method'
              : !pathPattern.test(path)
                ? 'path'
                : !hashPattern.test(bodySha256)
                  ? 'body'
                  : null
  if (odd !== null) return { kind: 'malformed', part: odd }

  const secrets = request.keys(key).filter((secret) => secret !== '')
  const text = signedText({ method, path, timestamp, nonce, bodySha256 })
  const given = signatures.map((each) => Buffer.from(each.slice('v2='.length), 'hex'))
  // An unknown key costs the same HMAC and comparison as a known one: time must not tell which ids exist.
  const expected = (secrets.length === 0 ? [nobodysSecret] : secrets).map((secret) => hmac(secret, text))
  let matches = 0
  for (const one of expected) for (const other of given) matches += timingSafeEqual(one, other) ? 1 : 0
  if (secrets.length === 0) return { kind: 'unknown_key' }
  if (matches === 0) return { kind: 'mismatch', keyId: key }

  const ageMs = request.now.getTime() - Number(timestamp) * 1000
  if (ageMs > toleranceMs) return { kind: 'stale', keyId: key, byMs: ageMs }
  if (-ageMs > toleranceMs) return { kind: 'future', keyId: key, byMs: -ageMs }
  return { kind: 'ok', keyId: key, nonce, timestamp: Number(timestamp) }
}

/** What it signs is never accepted: no key has it. */
const nobodysSecret = 'no key has this secret, and nothing signed with it is accepted'

/**
 * Each header exactly once. An array is a repeated header; Node and fetch join repeated ones with a comma and a space,
 * which none of the four may contain.
 */
function readHeaders(headers: ReceivedHeaders): { readonly values: Record<Part, string> } | Verdict {
  const entries: readonly (readonly [string, string | readonly string[] | undefined])[] =
    headers instanceof Headers ? [...headers] : Object.entries(headers)
  const values = { signature: '', key: '', timestamp: '', nonce: '' }
  for (const part of ['signature', 'key', 'timestamp', 'nonce'] as const) {
    const header = signatureHeaders[part]
    const found = entries.filter(([name, value]) => value !== undefined && name.toLowerCase() === header.toLowerCase())
    const value = found[0]?.[1]
    if (value === undefined) return { kind: 'missing', header }
    if (found.length > 1 || typeof value !== 'string') return { kind: 'malformed', part: header }
    values[part] = value
  }
  return { values }
}

function hmac(secret: string, text: string): Buffer {
  return createHmac('sha256', secret).update(text).digest()
}

export function sha256(body: string | Uint8Array): string {
  return createHash('sha256').update(body).digest('hex')
}
