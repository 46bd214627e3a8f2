import { randomBytes } from 'node:crypto'
import { TmsError } from '../errors.ts'
import { signRequest } from './request.ts'

export type SigningClient = {
  /**
   * Sends one signed request and gives the answer as it is: redirects aren't followed, because what is signed is for one
   * path, and nothing is tried again. To try again call it again, with an idempotency key of your own in the body.
   */
  request(
    method: string,
    path: string,
    body?: unknown,
    options?: { readonly signal?: AbortSignal; readonly headers?: Readonly<Record<string, string>> },
  ): Promise<Response>
}

export type SigningClientOptions = {
  /** Scheme and host, and the prefix of all paths if there is one. */
  readonly baseUrl: string
  readonly keyId: string
  readonly secret: string | readonly [string, ...string[]]
  readonly fetch?: typeof globalThis.fetch
  readonly clock?: () => Date
  readonly random?: (bytes: number) => Uint8Array
}

/** A client that signs what it sends. The body is serialised once, so that what is signed is what is sent. */
export function createSigningClient({
  baseUrl,
  keyId,
  secret,
  fetch = globalThis.fetch,
  clock = () => new Date(),
  random = randomBytes,
}: SigningClientOptions): SigningClient {
  const base = parseBase(baseUrl)
  const prefix = base.pathname.replace(/\/$/, '')
  return {
    async request(method, path, body, options = {}) {
      const url = URL.canParse(base.origin + prefix + path) ? new URL(base.origin + prefix + path) : null
      if (!path.startsWith('/') || !url?.pathname.startsWith(`${prefix}/`)) {
        throw unsendable('the path', 'it takes one that starts with / and stays below the base URL')
      }
      url.hash = ''
      // A lone `?` stays in the URL and not in its `search`: some versions of fetch send it, so it would be signed by none.
      if (url.search === '') url.search = ''
      const text = body === undefined ? '' : toText(body)
      const signed = signRequest({
        keyId,
        secret,
        method,
        path: url.pathname + url.search,
        body: text,
        now: clock(),
        nonce: random(16),
      })
      const headers = new Headers(options.headers)
      if (body !== undefined) headers.set('content-type', 'application/json')
      for (const [name, value] of Object.entries(signed)) headers.set(name, value)
      return fetch(url, {
        method,
        headers,
        redirect: 'manual',
        ...(body === undefined ? {} : { body: text }),
        ...(options.signal ? { signal: options.signal } : {}),
      })
    },
  }
}

function toText(body: unknown): string {
  // The types say it is always text; of a function or a symbol it is undefined.
  const text: unknown = JSON.stringify(body)
  if (typeof text !== 'string') throw unsendable('the body', 'it is no JSON value')
  return text
}

function parseBase(baseUrl: string): URL {
  const url = URL.canParse(baseUrl) ? new URL(baseUrl) : null
  if (url === null || !/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash) {
    throw unsendable('the base URL', 'it takes http or https, a host, and a path at most: no user, query or fragment')
  }
  return url
}

function unsendable(what: string, why: string): TmsError {
  return new TmsError({
    code: 'INPUT_INVALID',
    what: `this request can't be sent: ${what} is not usable`,
    why,
    next: ['see docs/signed-requests.md'],
  })
}
