import { ProtobufTraceSerializer } from '@opentelemetry/otlp-transformer'
import type { ReadableSpan } from '@opentelemetry/sdk-trace'
import { bounded, limitsFor, persistently, type Limits } from '../drivers/patience.ts'
import { TmsError } from '../errors.ts'
import type { Exported, QueueLimits } from './options.ts'

type ExportOptions = {
  readonly endpoint: string
  readonly headers: Readonly<Record<string, string>>
  readonly fetchTimeoutMs: number
  readonly limits: QueueLimits
}

export type ExportQueue = {
  add(span: ReadableSpan): void
  flush(): Promise<void>
  stop(): Promise<void>
  exported(): Exported
}

/** An answer that isn't success. */
class NotTaken extends Error {
  readonly status: number
  readonly waitMs: number

  constructor(status: number, waitMs: number) {
    super(`the collector answered ${status}`)
    this.status = status
    this.waitMs = waitMs
  }
}

/** Those that the OTLP specification lets a client repeat. */
const repeatable = new Set([429, 502, 503, 504])

/** An answer is a few bytes; more comes from something that is no collector. */
const longestAnswer = 65_536

/**
 * OTLP over HTTP, protobuf. One request at a time and a queue with an end, so that a collector which never answers
 * costs memory for `limits.queue` spans and nothing else. Own `fetch` instead of the stock exporter: that one adds
 * headers from `OTEL_*` variables, and its timeout is one of silence, not of the whole.
 */
export function startExport(options: ExportOptions): ExportQueue {
  const { limits, fetchTimeoutMs } = options
  const url = tracesUrl(options.endpoint)
  const headers = checkedHeaders(options.headers)
  const over = new AbortController()
  let waiting: ReadableSpan[] = []
  let sending: Promise<void> | null = null
  let timer: NodeJS.Timeout | null = null
  let stopping: Promise<void> | null = null
  let spans = 0
  let failed = 0
  let dropped = 0

  const again = (error: unknown): number | undefined => {
    if (stopping !== null) return undefined
    if (error instanceof NotTaken) return repeatable.has(error.status) ? error.waitMs : undefined
    // fetch says TypeError for every network failure.
    return error instanceof TypeError ? 0 : undefined
  }

  const send = async (batch: readonly ReadableSpan[]): Promise<void> => {
    try {
      const body = ProtobufTraceSerializer.serializeRequest([...batch])
      if (body === undefined) throw new Error('nothing to send')
      const time = limitsFor(fetchTimeoutMs, over.signal)
      const rejected = await persistently(time, again, () => post(url, headers, body, time))
      const lost = Math.min(Math.max(0, rejected), batch.length)
      failed += lost
      spans += batch.length - lost
    } catch {
      failed += batch.length
    }
  }

  const sendAll = async (): Promise<void> => {
    while (waiting.length > 0 && !over.signal.aborted) {
      const batch = waiting.slice(0, limits.batch)
      waiting = waiting.slice(limits.batch)
      await send(batch)
    }
  }

  const pump = (): Promise<void> => {
    if (timer !== null) clearTimeout(timer)
    timer = null
    sending ??= sendAll().finally(() => {
      sending = null
    })
    return sending
  }

  const flush = async (): Promise<void> => {
    await bounded(pump(), limitsFor(fetchTimeoutMs), () => undefined).catch(() => undefined)
  }

  const stop = async (): Promise<void> => {
    await flush()
    over.abort()
    await sending
    dropped += waiting.length
    waiting = []
  }

  return {
    add: (span) => {
      if (stopping !== null || waiting.length >= limits.queue) {
        dropped++
        return
      }
      waiting.push(span)
      if (sending !== null) return
      if (waiting.length >= limits.batch) void pump()
      // Unreferenced: spans that wait keep no process alive. `stop` sends them.
      else timer ??= setTimeout(() => void pump(), limits.everyMs).unref()
    },
    flush,
    stop: () => (stopping ??= stop()),
    exported: () => ({ spans, failed, dropped }),
  }
}

/** How many spans the collector took and then rejected. */
async function post(url: URL, headers: Headers, body: Uint8Array, limits: Limits): Promise<number> {
  const attempt = new AbortController()
  const exchange = async (): Promise<number> => {
    // A redirect would carry the headers, and the key in them, to another host.
    const request = { method: 'POST', headers, body, redirect: 'manual', signal: attempt.signal } as const
    const response = await fetch(url, request)
    if (!response.ok) {
      await response.body?.cancel()
      throw new NotTaken(response.status, secondsToWait(response.headers.get('retry-after')) * 1000)
    }
    return rejectedIn(await readAnswer(response))
  }
  return bounded(exchange(), limits, () => attempt.abort())
}

/** The dated form of Retry-After isn't read: it trusts two clocks. */
function secondsToWait(retryAfter: string | null): number {
  return retryAfter !== null && /^\d{1,4}$/.test(retryAfter) ? Number(retryAfter) : 0
}

async function readAnswer(response: Response): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let size = 0
  if (response.body !== null) {
    // True by the fetch standard: a body is read in Uint8Arrays.
    for await (const part of response.body as AsyncIterable<Uint8Array>) {
      size += part.length
      // Leaving the loop closes the connection. The batch was taken; only its answer is too long to read.
      if (size > longestAnswer) return new Uint8Array()
      parts.push(part)
    }
  }
  return Buffer.concat(parts)
}

/** Success with something unreadable in it is success: the status decides. */
function rejectedIn(answer: Uint8Array): number {
  if (answer.length === 0) return 0
  try {
    const rejected = ProtobufTraceSerializer.deserializeResponse(answer).partialSuccess?.rejectedSpans ?? 0
    return Number.isFinite(rejected) ? rejected : 0
  } catch {
    return 0
  }
}

/** `http://host:4318` means its `/v1/traces`, as with every OTLP exporter; an address that ends so is taken as it is. */
function tracesUrl(endpoint: string): URL {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : null
  if (url === null || !['http:', 'https:'].includes(url.protocol) || url.username !== '' || url.password !== '') {
    throw new TmsError({
      code: 'CONFIG_INVALID',
      // Without the address: there may be a password in it.
      what: "the address of the trace collector can't be used",
      why: 'it is an http or https address without user and password; keys go into headers',
      next: ['use an address like http://127.0.0.1:4318'],
    })
  }
  if (!url.pathname.endsWith('/v1/traces')) url.pathname = `${url.pathname.replace(/\/+$/, '')}/v1/traces`
  return url
}

function checkedHeaders(given: Readonly<Record<string, string>>): Headers {
  const headers = new Headers()
  for (const [name, value] of Object.entries(given)) {
    try {
      headers.set(name, value)
    } catch {
      // The cause quotes the value, which is a key as a rule.
      throw new TmsError({
        code: 'CONFIG_INVALID',
        what: 'a header for the trace collector is not valid',
        why: 'a name or a value has characters that HTTP does not allow',
        next: ['check the headers for the trace collector: no line breaks, no blanks in names'],
      })
    }
  }
  headers.set('content-type', 'application/x-protobuf')
  return headers
}
