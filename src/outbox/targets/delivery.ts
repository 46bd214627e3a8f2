import { TmsError } from '../../errors.ts'
import { addressProblem, isSafe, notSafe } from './address.ts'
import { urlProblem } from './config.ts'
import { withDeadline } from './deadline.ts'
import { exchange, isAnswered, retryAfterMs, type Answer, type Request } from './exchange.ts'
import type { Context, Event, Outcome, Secrets, SecretSource } from './target.ts'

export type Delivery = {
  readonly to: { readonly url?: string | undefined; readonly urlFrom?: SecretSource | undefined }
  readonly hosts: readonly string[]
  /** The request carries secrets as they are: nobody on the way may read it. */
  readonly secretHeaders?: boolean
  readonly secrets: Secrets
  readonly context: Context
  readonly event: Event
  /** Makes the request, or says why it can't be made of this event. */
  readonly make: (url: URL, secret: (source: SecretSource) => Promise<string>) => Promise<Request | Outcome>
  /** What an answer means, where a receiver has more to say than its status. */
  readonly judge?: (answer: Answer) => Outcome | null
}

/** One attempt over HTTP, from looking up the secrets to the answer, inside one deadline. */
export async function deliver(delivery: Delivery): Promise<Outcome> {
  const { context } = delivery
  const progress = { sent: false }
  const ended = await withDeadline(context, (signal) =>
    attempt(delivery, signal, () => {
      progress.sent = true
    }),
  )
  if ('value' in ended) return ended.value
  const far = progress.sent ? 'before an answer came, and it may have arrived' : 'before anything was sent'
  const why =
    ended.cut === 'stopped'
      ? `the worker was stopped ${far}`
      : `it took longer than ${context.timeoutMs} ms: the time was up ${far}`
  return { kind: 'retry', why, ...(progress.sent ? { unknown: true } : {}) }
}

async function attempt(delivery: Delivery, signal: AbortSignal, onSend: () => void): Promise<Outcome> {
  const { to, hosts, context, event, make, judge } = delivery
  if (!headerSafe(event.deliveryId)) return { kind: 'rejected', why: 'the delivery id can not be sent in a header' }
  const found = await findSecrets(delivery.secrets, async (secret) => {
    const address = to.url ?? (to.urlFrom ? await secret(to.urlFrom) : '')
    if (urlProblem(address) !== null) return `the address ${urlProblem(address) ?? ''}`
    const url = new URL(address)
    if ((to.urlFrom !== undefined || delivery.secretHeaders === true) && !isSafe(url))
      return { url, request: { kind: 'rejected' as const, why: notSafe } }
    return { url, request: await make(url, secret) }
  })
  if (typeof found === 'string') return { kind: 'retry', why: found }
  const { url, request } = found
  if ('kind' in request) return request
  const problem = await addressProblem(url, hosts, context.lookup).catch((error: unknown) => ({ code: codeOf(error) }))
  if (typeof problem === 'string') return { kind: 'rejected', why: problem }
  if (problem !== null) return { kind: 'retry', why: `the host's address was not found (${problem.code})` }

  onSend()
  const answer = await exchange(
    url,
    { ...request, headers: { ...request.headers, ...traceHeader(event) } },
    context,
    signal,
  )
  if (!isAnswered(answer)) return { kind: 'retry', why: answer.why, ...(answer.unknown ? { unknown: true } : {}) }
  return judge?.(answer) ?? judgeStatus(answer, context.clock())
}

/** What the status alone says; the rules that all HTTP targets share. */
export function judgeStatus({ status, retryAfter, whole }: Answer, now: Date): Outcome {
  if (status >= 200 && status < 300) {
    return whole === 'broken'
      ? {
          kind: 'retry',
          why: `the answer (${status}) broke off: it is not known whether the receiver finished`,
          unknown: true,
        }
      : { kind: 'delivered', note: `answered ${status}` }
  }
  if (status >= 300 && status < 400) {
    return { kind: 'rejected', why: `answered ${status}, a redirect: those are never followed, give the final address` }
  }
  if (status === 408 || status === 425 || status === 429 || status >= 500) {
    const afterMs = retryAfterMs(retryAfter, now)
    return { kind: 'retry', why: `answered ${status}`, ...(afterMs === null ? {} : { afterMs }) }
  }
  return { kind: 'rejected', why: `answered ${status}` }
}

/** Runs `use` with a lookup of secrets; a sentence when one isn't there. Putting it there mends it, so that's a retry. */
async function findSecrets<T>(
  secrets: Secrets,
  use: (secret: (source: SecretSource) => Promise<string>) => Promise<T | string>,
): Promise<T | string> {
  let missing: SecretSource | null = null
  try {
    return await use(async (source) => {
      missing = source
      const secret = await secrets(source)
      if (secret === '') throw new Error('empty')
      missing = null
      return secret
    })
  } catch (error) {
    // Assigned inside the function above, which the compiler doesn't follow.
    const source = missing as SecretSource | null
    if (source === null) throw error
    // Only our own reasons are passed on: another's words could quote the secret.
    if (error instanceof TmsError && error.code === 'CONFIG_MISSING')
      return `the worker can't get the secret, because ${error.why}`
    return 'env' in source
      ? `the secret in the variable ${source.env} is missing on the worker`
      : `the secret in the file ${source.file} can't be read by the worker`
  }
}

const traceparentPattern = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/

function traceHeader({ traceparent }: Event): Readonly<Record<string, string>> {
  return traceparent !== null && traceparentPattern.test(traceparent) ? { traceparent } : {}
}

/** Null without a trace: then there is nothing to link to. */
export function traceIdOf({ traceparent }: Event): string | null {
  return traceparent !== null && traceparentPattern.test(traceparent) ? traceparent.slice(3, 35) : null
}

export function headerSafe(value: string): boolean {
  return /^[\x20-\x7e]{1,4096}$/.test(value) && value.trim() === value
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown'
}
