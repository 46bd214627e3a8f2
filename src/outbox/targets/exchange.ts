import type { Context } from './target.ts'

/** Enough for every error code and receipt that is looked at. */
export const mostAnswerBytes = 4096
const longestAnswerMs = 2000
/** What goes wrong before the first byte of a request: no name, no connection, or nobody to be trusted. */
const unsent =
  /^(ECONNREFUSED|ENOTFOUND|EAI_|EHOSTUNREACH|ENETUNREACH|EPROTO|UND_ERR_CONNECT_TIMEOUT|ERR_SSL_|ERR_TLS_|CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_)/

/** What a target wants to send over HTTP. */
export type Request = {
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | null
}

export type Answer = {
  readonly status: number
  readonly retryAfter: string | null
  /** The first 4 KB. It may repeat what was sent, so it goes into no outcome and no log. */
  readonly text: string
  /** `cut`: too long or too slow, and it doesn't matter. `broken`: the connection ended in the middle. */
  readonly whole: 'whole' | 'cut' | 'broken'
}

/** `unknown`: it may have arrived all the same. */
export type NoAnswer = { readonly why: string; readonly unknown: boolean }

export function isAnswered(answer: Answer | NoAnswer): answer is Answer {
  return 'status' in answer
}

/** One exchange: no redirects, no second try, and no more of the answer than is looked at. */
export async function exchange(
  url: URL,
  { method, headers, body }: Request,
  { fetch, timeoutMs }: Pick<Context, 'fetch' | 'timeoutMs'>,
  signal: AbortSignal,
): Promise<Answer | NoAnswer> {
  let response: Response
  try {
    response = await fetch(url, {
      method,
      // What answers in gzip could make 4 KB of answer from 4 bytes: it is asked not to.
      headers: { 'accept-encoding': 'identity', 'user-agent': 'tms-outbox', ...headers },
      redirect: 'manual',
      signal,
      ...(body === null ? {} : { body }),
    })
  } catch (error) {
    const code = networkCode(error)
    return unsent.test(code)
      ? { why: `no answer (${code})`, unknown: false }
      : { why: `no answer (${code}): it may have arrived`, unknown: true }
  }
  const { text, whole } = await readAnswer(response, Math.min(longestAnswerMs, timeoutMs / 2))
  return { status: response.status, retryAfter: response.headers.get('retry-after'), text, whole }
}

async function readAnswer(response: Response, longestMs: number): Promise<Pick<Answer, 'text' | 'whole'>> {
  // True because a body of fetch is a stream of bytes.
  const reader = response.body?.getReader() as ReadableStreamDefaultReader<Uint8Array> | undefined
  if (reader === undefined) return { text: '', whole: 'whole' }
  const parts: Uint8Array[] = []
  const text = () => new TextDecoder().decode(Buffer.concat(parts).subarray(0, mostAnswerBytes))
  let slow = (): void => undefined
  const late = new Promise<'late'>((resolve) => {
    slow = () => resolve('late')
  })
  const timer = setTimeout(() => slow(), longestMs)
  try {
    for (let bytes = 0; bytes <= mostAnswerBytes;) {
      const next = await Promise.race([reader.read(), late])
      if (next === 'late') break
      if (next.done) return { text: text(), whole: 'whole' }
      parts.push(next.value)
      bytes += next.value.byteLength
    }
    // Cancelling ends the connection: what is left of the answer isn't waited for.
    void reader.cancel().catch(() => undefined)
    return { text: text(), whole: 'cut' }
  } catch {
    return { text: text(), whole: 'broken' }
  } finally {
    clearTimeout(timer)
  }
}

/** The system's code for what went wrong. Messages are not used: they quote addresses. */
function networkCode(error: unknown): string {
  for (let at = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++) {
    if ('code' in at && typeof at.code === 'string' && /^[A-Z][A-Z0-9_]{2,60}$/.test(at.code)) return at.code
  }
  return 'the connection failed'
}

const longestWaitMs = 3_600_000
const httpDate =
  /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT$/

/** How long the receiver asks to wait, in either form, at most an hour. Null when it doesn't say, or says nonsense. */
export function retryAfterMs(header: string | null, now: Date): number | null {
  const text = header?.trim() ?? ''
  const wait = /^\d{1,15}$/.test(text)
    ? Number(text) * 1000
    : httpDate.test(text)
      ? Date.parse(text) - now.getTime()
      : NaN
  return Number.isNaN(wait) ? null : Math.min(Math.max(wait, 0), longestWaitMs)
}
