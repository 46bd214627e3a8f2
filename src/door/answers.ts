import { STATUS_CODES } from 'node:http'
import { errorTable, exit, TmsError, type ErrorCode } from '../errors.ts'

/**
 * What the outside hears. One sentence for each code, written here: nothing of an error's own words, of the database or of
 * somebody else's tenant gets into an answer. The log has the rest.
 */
const doorCodes = {
  BODY_TOO_LARGE: { http: 413, message: 'The body is larger than 2 MB.' },
  MEDIA_TYPE: { http: 415, message: 'The body must be application/json, not compressed.' },
  METHOD: { http: 405, message: 'This address does not take this method.' },
  EXPECTATION: { http: 417, message: 'This door does nothing of what Expect asks for.' },
  SLOW: { http: 408, message: 'The request took too long to arrive.' },
  HEADERS_TOO_LARGE: { http: 431, message: 'The headers are too large.' },
  OVERLOADED: { http: 503, message: 'Too much at once. Sign and send it again in a moment.' },
  DRAINING: { http: 503, message: 'This door is closing. Sign and send it again.' },
  UNAVAILABLE: { http: 503, message: 'The database does not answer. Sign and send it again later.' },
  UNAUTHORIZED: { http: 401, message: 'This needs the token.' },
  INTERNAL: { http: 500, message: 'Something failed inside. It was logged.' },
} as const

type DoorCode = keyof typeof doorCodes

/** Refusals of the database and of the signature that have a meaning outside. Everything else is INTERNAL or UNAVAILABLE. */
const messages: Partial<Record<ErrorCode, string>> = {
  SIGNATURE_INVALID: 'The request is not signed, or not with a signature that is accepted now.',
  NONCE_REUSED: 'This nonce was used before. Nothing was done again.',
  RATE_LIMITED: 'Too many requests. Wait for the next minute.',
  BLOCKED: 'Too many wrong requests came from here. Nothing is taken for a while.',
  NOT_FOUND: 'There is nothing of that name here.',
  ROLE_DENIED: 'This key may not do that.',
  POLICY_DENIED: 'No loaded policy allows one of these functions.',
  INPUT_INVALID: 'The body is not what this address takes.',
  FENCED: 'The fleet is halted. Nothing was done.',
  PAUSED: 'This is paused. Nothing was done.',
  REPLAY_LIMIT: 'No replay is possible now: a limit is reached or replays are off.',
  PLAN_CHANGED: 'These dead letters are not what the dry run showed. Make a new one.',
  CONFLICT: 'This contradicts what is there. Nothing was done.',
  REQUEST_REUSED: 'This contradicts an earlier request. Nothing was done.',
  BUDGET_EXCEEDED: 'A budget is used up. Nothing was done.',
}

/** Thrown by the door itself. `reason` is for metrics and the log: one of a few words, nothing that was sent. */
export class DoorRefusal extends Error {
  readonly code: DoorCode | ErrorCode
  readonly reason: string
  /** Where in the body it is wrong, and how; it names nothing that the sender doesn't know. */
  readonly detail: string | null
  /** When it may be different. */
  readonly afterSeconds: number | null

  constructor(
    code: DoorCode | ErrorCode,
    reason: string,
    detail: string | null = null,
    afterSeconds: number | null = null,
  ) {
    super(code)
    this.code = code
    this.reason = reason
    this.detail = detail
    this.afterSeconds = afterSeconds
  }
}

export type Answer = {
  readonly status: number
  readonly code: string
  readonly body: { readonly error: { readonly code: string; readonly message: string } }
  readonly headers: Readonly<Record<string, string>>
  /** For metrics and the log. */
  readonly reason: string
  /** Something is wrong on this side. */
  readonly ours: boolean
}

const nothingOfOthers = {
  'strict-transport-security': 'max-age=31536000; includeSubDomains',
  'x-frame-options': 'DENY',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'permissions-policy': 'camera=(), geolocation=(), microphone=(), payment=(), usb=()',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cache-control': 'no-store',
} as const

/** On every answer, errors included. */
export const securityHeaders: Readonly<Record<string, string>> = nothingOfOthers

export function answerTo(thrown: unknown, now: Date): Answer {
  const { code, reason, detail } = readProblem(thrown)
  const own = isDoorCode(code) ? doorCodes[code] : undefined
  const status = own?.http ?? (isDoorCode(code) ? 500 : errorTable[code].http)
  const message = own?.message ?? (isDoorCode(code) ? '' : messages[code]) ?? ''
  const asked = thrown instanceof DoorRefusal ? thrown.afterSeconds : secondsUntil(thrown, now)
  const retryAfter = asked ?? (code === 'RATE_LIMITED' ? secondsToNextMinute(now) : status === 503 ? 1 : null)
  return {
    status,
    code,
    body: { error: { code, message: detail === null ? message : `${message} ${detail}` } },
    headers: {
      ...(retryAfter === null ? {} : { 'retry-after': String(retryAfter) }),
      ...(status === 401 ? { 'www-authenticate': code === 'UNAUTHORIZED' ? 'Bearer' : 'Transbot-Signature' } : {}),
    },
    reason,
    ours: code === 'INTERNAL' || code === 'UNAVAILABLE',
  }
}

/** For what fails before there is a request: the bytes of a whole answer. */
export function rawAnswer(thrown: unknown, now: Date): string {
  const { status, body, headers } = answerTo(thrown, now)
  const text = JSON.stringify(body)
  const lines = Object.entries({
    ...securityHeaders,
    ...headers,
    'content-type': 'application/json; charset=utf-8',
    'content-length': String(Buffer.byteLength(text)),
    connection: 'close',
  }).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${lines.join('')}\r\n${text}`
}

/** What Node's HTTP server says about bytes it could not read as a request. */
export function ofClientError(error: { readonly code?: string }): DoorRefusal {
  switch (error.code) {
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new DoorRefusal('SLOW', 'slow')
    case 'HPE_HEADER_OVERFLOW':
      return new DoorRefusal('HEADERS_TOO_LARGE', 'headers_too_large')
    default:
      return new DoorRefusal('INPUT_INVALID', 'no_http')
  }
}

type Named = {
  readonly code: DoorCode | ErrorCode
  readonly reason: string
  readonly detail: string | null
}

function readProblem(thrown: unknown): Named {
  if (thrown instanceof DoorRefusal) return thrown
  if (thrown instanceof TmsError) {
    // Whatever the door's own connection lacks is nobody's business outside.
    const reason = thrown.code.toLowerCase()
    const known = messages[thrown.code] !== undefined
    if (known) return { code: thrown.code, reason, detail: null }
    return { code: thrown.exit === exit.outside ? 'UNAVAILABLE' : 'INTERNAL', reason, detail: null }
  }
  const code = typeof thrown === 'object' && thrown !== null && 'code' in thrown ? thrown.code : null
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return { code: 'BODY_TOO_LARGE', reason: 'body_too_large', detail: null }
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return { code: 'MEDIA_TYPE', reason: 'media_type', detail: null }
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
    case 'FST_ERR_BAD_URL':
      return { code: 'INPUT_INVALID', reason: 'no_http', detail: null }
    case 'ECONNRESET':
      return { code: 'INPUT_INVALID', reason: 'gone', detail: null }
    default:
      return { code: 'INTERNAL', reason: 'internal', detail: null }
  }
}

function isDoorCode(code: DoorCode | ErrorCode): code is DoorCode {
  return Object.hasOwn(doorCodes, code)
}

/** What the database said; its clock and this host's may differ by a little. */
function secondsUntil(thrown: unknown, now: Date): number | null {
  if (!(thrown instanceof TmsError) || thrown.againAt === undefined) return null
  return Math.max(1, Math.ceil((Date.parse(thrown.againAt) - now.getTime()) / 1000))
}

/** The database counts by its own minutes; a second off costs one more answer like this. */
function secondsToNextMinute(now: Date): number {
  return Math.max(1, 60 - now.getUTCSeconds())
}
