import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify'
import { createHash, timingSafeEqual } from 'node:crypto'
import type { AddressInfo, Socket } from 'node:net'
import { checkContract } from '../db/schema.ts'
import type { DoorOperation } from '../drivers/contract/door.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import type { Logger } from '../redaction/logger.ts'
import { redactError } from '../redaction/redact.ts'
import { signatureHeaders } from '../signing/request.ts'
import { isLoopback, rateAddress, trustIn } from './address.ts'
import { admit, verify, workId, type Signed } from './admit.ts'
import { answerTo, DoorRefusal, ofClientError, rawAnswer, securityHeaders } from './answers.ts'
import { anyBody, parseBody, planBody, readShape, replayBody, tasksBody, wantsDryRun } from './body.ts'
import { createBuckets, type Bucket } from './buckets.ts'
import { limitCrowd } from './crowd.ts'
import type { KeyRing } from './keys.ts'
import { createMetrics } from './metrics.ts'
import type { Sources } from './sources.ts'
import { startWatch } from './watch.ts'

export type DoorLimits = {
  readonly bodyBytes: number
  /** Of all bodies that are arriving now; of one address a quarter, or one body. */
  readonly arrivingBytes: number
  /** For all of a request to arrive; and for its headers, and for a connection to say anything. */
  readonly requestMs: number
  readonly headersMs: number
  readonly keepAliveMs: number
  /** How often Node looks for those that are too slow. */
  readonly checkMs: number
  readonly connections: number
  /** Signed requests in the database at once. */
  readonly working: number
  /** What is in flight when the door closes gets this long. */
  readonly graceMs: number
  readonly strangers: Bucket
  readonly knocks: Bucket
  readonly lines: Bucket
  /** How often what strangers tried is told to the database, and how often it is asked whom to keep out. */
  readonly reportMs: number
  readonly refreshMs: number
}

export const usualLimits: DoorLimits = {
  bodyBytes: 2 * 1024 * 1024,
  arrivingBytes: 128 * 1024 * 1024,
  requestMs: 10_000,
  headersMs: 5_000,
  keepAliveMs: 5_000,
  checkMs: 1_000,
  connections: 500,
  working: 64,
  graceMs: 2_500,
  strangers: { capacity: 30, perSecond: 0.5 },
  knocks: { capacity: 20, perSecond: 10 },
  lines: { capacity: 50, perSecond: 20 },
  reportMs: 1_000,
  refreshMs: 5_000,
}

export type DoorOptions = {
  readonly host: string
  readonly port: number
  /** As account n8n: admits, and puts tasks in. */
  readonly driver: Driver
  /** As account dlq. Without it there is no replay here. */
  readonly replay?: Driver | undefined
  /** As an account that may read the fleet, for its metrics. */
  readonly reads?: Driver | undefined
  readonly keys: () => KeyRing
  readonly sources: Sources
  readonly logger: Logger
  readonly clock: () => Date
  /** Addresses and networks whose X-Forwarded-For is believed. */
  readonly trustProxy?: readonly string[]
  /** With it /metrics takes nobody without; without it only callers on this host that no proxy stands before. */
  readonly metricsToken?: string | undefined
  readonly limits?: Partial<DoorLimits>
}

export type Door = {
  readonly url: string
  /** Nobody new; what is in flight is finished within the grace; then all connections end. */
  close(): Promise<void>
}

/** Routes by the name they have in metrics and logs; the methods they take. */
const routes = {
  '/v1/tasks': { name: 'tasks', methods: 'POST' },
  '/v1/dlq/replay': { name: 'dlq_replay', methods: 'POST' },
  '/v1/webhooks/:source': { name: 'webhooks', methods: 'POST' },
  '/healthz': { name: 'healthz', methods: 'GET, HEAD' },
  '/readyz': { name: 'readyz', methods: 'GET, HEAD' },
  '/metrics': { name: 'metrics', methods: 'GET, HEAD' },
} as const

const longestHead = 16 * 1024
const readyMs = 2_000
const readyFreshMs = 1_000
const mostRemembered = 10_000
/** More than it takes to be shut out for repeats: sql/functions has the number. */
const countedRepeats = 20
/** Knocks on a database that hangs don't pile up. */
const mostKnocking = 8

export async function openDoor(options: DoorOptions): Promise<Door> {
  const { driver, replay, logger, clock, sources } = options
  const limits = { ...usualLimits, ...options.limits }
  const metrics = createMetrics({ reads: options.reads ?? null, clock })
  const strangers = createBuckets(limits.strangers)
  const knocks = createBuckets(limits.knocks)
  const lines = createBuckets(limits.lines)
  const watch = startWatch({ driver, logger, clock, reportMs: limits.reportMs, refreshMs: limits.refreshMs })
  const began = new WeakMap<FastifyRequest, number>()
  /** The request being answered on each connection, for errors that have only the connection. */
  const answering = new WeakMap<Socket, { readonly request: FastifyRequest; readonly response: FastifyReply['raw'] }>()
  /** Requests whose signature was found right. */
  const proven = new WeakSet<FastifyRequest>()
  const used = new Map<string, number>()
  /** Keys and where they were let in from, the last one last. */
  const welcome = new Set<string>()
  let draining = false
  let knocking = 0
  let working = 0
  let arriving = 0
  const arrivingFrom = new Map<string, number>()
  const mostFromOne = Math.max(limits.arrivingBytes / 4, limits.bodyBytes)
  const crowded = (address: string) => arriving > limits.arrivingBytes || (arrivingFrom.get(address) ?? 0) > mostFromOne
  let unlogged = 0

  const app = Fastify({
    logger: false,
    bodyLimit: limits.bodyBytes,
    requestTimeout: limits.requestMs,
    keepAliveTimeout: limits.keepAliveMs,
    http: {
      requestTimeout: limits.requestMs,
      headersTimeout: Math.min(limits.headersMs, limits.requestMs),
      connectionsCheckingInterval: limits.checkMs,
      maxHeaderSize: longestHead,
      // Of itself Node refuses these, without the usual headers and uncounted.
      requireHostHeader: false,
    },
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    requestIdHeader: false,
    trustProxy: options.trustProxy && options.trustProxy.length > 0 ? trustIn(options.trustProxy) : false,
    // A name that the router refused would never come to the hook that counts strangers.
    routerOptions: { maxParamLength: longestHead },
    frameworkErrors: (error, request, reply) => {
      void reply.headers(securityHeaders)
      refuse(error, request, reply)
    },
    clientErrorHandler: (error, socket) => {
      const last = answering.get(socket)
      // One that is over is not what the error is about.
      const over = last?.request.raw.complete === true && last.response.writableFinished
      const { request, response } = over || !last ? {} : last
      // A connection that only went away gets no answer, and one whose answer has begun gets no second one.
      if (error.code !== 'ECONNRESET' && socket.writable && response?.headersSent !== true) {
        const refusal = ofClientError(error)
        const problem =
          request !== undefined
            ? judged(refusal, request)
            : // Whoever connects and says nothing sent nothing wrong.
              socket.bytesRead > 0
              ? stranger(refusal, rateAddress(socket.remoteAddress, 'unknown'), '')
              : refusal
        const { status, reason } = answerTo(problem, clock())
        count('none', status, 0, reason)
        socket.write(rawAnswer(problem, clock()))
      }
      socket.destroySoon()
    },
  })
  // Of itself Node answers these, without the usual headers.
  app.server.on('checkExpectation', (_request, response) => {
    const { status, reason, ...answer } = answerTo(new DoorRefusal('EXPECTATION', 'expectation'), clock())
    count('none', status, 0, reason)
    response.shouldKeepAlive = false
    response.writeHead(status, { ...securityHeaders, 'content-type': 'application/json; charset=utf-8' })
    response.end(JSON.stringify(answer.body))
  })
  const crowd = limitCrowd(app.server, limits.connections, () => metrics.refused('put_out'))

  // ---- what every request goes through

  app.addHook('onRequest', (request, reply, done) => {
    began.set(request, performance.now())
    answering.set(request.raw.socket, { request, response: reply.raw })
    void reply.headers(securityHeaders)
    if (request.raw.httpVersion === '1.1' && request.headers.host === undefined)
      return done(closing(reply, new DoorRefusal('INPUT_INVALID', 'no_host', 'It has no Host.')))
    if (request.is404) return done(elsewhere(request, reply))
    if (!isSignedRoute(request)) return done()
    if (draining) return done(closing(reply, new DoorRefusal('DRAINING', 'draining')))
    // Before the body is read and before anything is computed. Health checks and metrics aren't asked: they are nobody's.
    const shut = watch.blocked(addressOf(request), keyNamed(request))
    if (shut !== null) {
      watch.saw('blocked', addressOf(request), keyNamed(request), 'shut out')
      return done(closing(reply, new DoorRefusal('BLOCKED', 'blocked', null, shut)))
    }
    if (crowded(addressOf(request))) return done(closing(reply, new DoorRefusal('OVERLOADED', 'arriving')))
    // Without the headers the body need not be read to know the answer.
    const unsigned = Object.values(signatureHeaders).some((name) => request.headers[name.toLowerCase()] === undefined)
    if (unsigned) return done(closing(reply, new DoorRefusal('SIGNATURE_INVALID', 'missing')))
    done()
  })

  app.addHook('preParsing', (request, _reply, payload, done) => {
    let mine = 0
    const address = addressOf(request)
    const arrived = (bytes: number) => {
      mine += bytes
      arriving += bytes
      const from = (arrivingFrom.get(address) ?? 0) + bytes
      if (from === 0) arrivingFrom.delete(address)
      else arrivingFrom.set(address, from)
    }
    payload.on('data', (chunk: Buffer) => {
      arrived(chunk.length)
      // The others' memory comes before this one's answer.
      if (crowded(address)) request.raw.socket.destroy()
    })
    // Comes in any case, also when the connection breaks.
    request.raw.once('close', () => arrived(-mine))
    done(null, payload)
  })

  app.addHook('onResponse', (request, reply, done) => {
    const seconds = (performance.now() - (began.get(request) ?? performance.now())) / 1000
    count(routeName(request), reply.statusCode, seconds, null)
    done()
  })

  app.removeAllContentTypeParsers()
  // The signature is over these bytes, so nothing may read them before. Of any type: who isn't signed hears that first.
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
  app.setErrorHandler((error, request, reply) => refuse(error, request, reply))
  app.setNotFoundHandler((request, reply) => refuse(elsewhere(request, reply), request, reply))

  // ---- signed routes

  app.post('/v1/tasks', (request, reply) =>
    signedWork(request, async (signed, content) => {
      const { tenant, tasks } = readShape(tasksBody, content)
      const admitted = await enter(request, signed, 'task.enqueue', tenant)
      const work = { request_id: workId(signed), tenant: admitted.tenant, tasks }
      void reply.code(202)
      return granted(await driver.call('tasks_enqueue', work))
    }),
  )

  app.post<{ Params: { source: string } }>('/v1/webhooks/:source', (request, reply) =>
    signedWork(request, async (signed, content) => {
      const source = sources.get(request.params.source)
      if (!source) throw new DoorRefusal('NOT_FOUND', 'unknown_source')
      const key = source.key === null ? null : keyOf(content, source.key)
      const admitted = await enter(request, signed, 'webhook.in', source.tenant)
      const task = {
        function: source.function,
        payload: readShape(anyBody, content),
        priority: source.priority,
        ...(key === null ? {} : { key }),
      }
      const work = { request_id: workId(signed), tenant: admitted.tenant, tasks: [task] }
      void reply.code(202)
      const { ids } = granted(await driver.call('tasks_enqueue', work))
      return { id: ids[0] ?? null }
    }),
  )

  app.post('/v1/dlq/replay', (request, reply) =>
    signedWork(request, async (signed, content) => {
      if (!replay) throw new DoorRefusal('NOT_FOUND', 'no_replay_here')
      if (wantsDryRun(content)) {
        const { tenant, ids, class: of, limit } = readShape(planBody, content)
        const admitted = await enter(request, signed, 'dlq.dry_run', tenant)
        return granted(await replay.call('dlq_plan', withoutAbsent({ tenant: admitted.tenant, ids, class: of, limit })))
      }
      const { tenant, ids, plan, why } = readShape(replayBody, content)
      const admitted = await enter(request, signed, 'dlq.replay', tenant)
      void reply.code(202)
      const work = { request_id: workId(signed), tenant: admitted.tenant, ids, plan, why }
      return granted(await replay.call('dlq_replay', work))
    }),
  )

  /** Verifies, parses, works; and counts what isn't signed for the address it came from. */
  async function signedWork(request: FastifyRequest, work: (signed: Signed, content: unknown) => Promise<unknown>) {
    // A POST without a body and without a type has none to parse.
    const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0)
    const received = { headers: request.headers, method: request.method, path: request.raw.url ?? '', body }
    const signed = verify(received, options.keys(), clock())
    proven.add(request)
    checkForm(request, body)
    if (working >= limits.working) throw new DoorRefusal('OVERLOADED', 'working')
    const { socket } = request.raw
    working += 1
    metrics.working(1)
    crowd.working(socket)
    try {
      return await work(signed, parseBody(body))
    } finally {
      working -= 1
      metrics.working(-1)
      crowd.done(socket)
    }
  }

  /**
   * The database has said that this nonce is used. It counts the first few repeats, and shuts out who sends them; a request that is
   * sent for ever costs it no more than those.
   */
  function remember(nonce: string): void {
    used.set(nonce, (used.get(nonce) ?? 0) + 1)
    const [oldest] = used.keys()
    if (used.size > mostRemembered && oldest !== undefined) used.delete(oldest)
  }

  function greet(source: string): void {
    welcome.delete(source)
    welcome.add(source)
    const [oldest] = welcome
    if (welcome.size > mostRemembered && oldest !== undefined) welcome.delete(oldest)
  }

  async function enter(request: FastifyRequest, signed: Signed, operation: DoorOperation, tenant: string) {
    if ((used.get(signed.nonce) ?? 0) >= countedRepeats) throw new DoorRefusal('NONCE_REUSED', 'nonce_reused')
    try {
      const admitted = await admit(driver, signed, { operation, tenant, address: addressOf(request) })
      greet(sourceOf(request))
      note('info', 'admitted', { operation, tenant: admitted.tenant, account: admitted.account, signer: signed.keyId })
      return admitted
    } catch (error) {
      if (error instanceof TmsError && error.code === 'NONCE_REUSED') remember(signed.nonce)
      throw error
    }
  }

  // ---- the others

  app.get('/healthz', async () => ({ status: 'ok' }))

  let looked: { readonly at: number; readonly ready: Promise<boolean> } | null = null
  app.get('/readyz', async (_request, reply) => {
    const now = clock().getTime()
    // Whoever asks often asks memory, not the database.
    if (looked === null || Math.abs(now - looked.at) > readyFreshMs) looked = { at: now, ready: look() }
    const ready = !draining && (await looked.ready)
    return reply.code(ready ? 200 : 503).send({ status: ready ? 'ready' : draining ? 'draining' : 'not_ready' })
  })

  async function look(): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<'late'>((resolve) => (timer = setTimeout(() => resolve('late'), readyMs)))
    try {
      return (await Promise.race([checkContract(driver), late])) !== 'late'
    } catch {
      return false
    } finally {
      clearTimeout(timer)
    }
  }

  app.get('/metrics', async (request, reply) => {
    const token = options.metricsToken
    if (token === undefined) {
      const relayed = request.headers['x-forwarded-for'] ?? request.headers['forwarded'] ?? request.headers['via']
      if (relayed !== undefined || !isLoopback(request.raw.socket.remoteAddress))
        throw new DoorRefusal('NOT_FOUND', 'metrics_from_afar')
    } else if (!sameSecret(request.headers.authorization ?? '', `Bearer ${token}`)) {
      throw new DoorRefusal('UNAUTHORIZED', 'metrics_token')
    }
    const { type, text } = await metrics.render()
    return reply.type(type).send(text)
  })

  // ---- refusing

  function refuse(thrown: unknown, request: FastifyRequest, reply: FastifyReply): void {
    const now = clock()
    const problem = judged(thrown, request)
    const answer = answerTo(problem, now)
    metrics.refused(answer.reason)
    note(answer.ours ? 'error' : 'info', 'refused', {
      route: routeName(request),
      status: answer.status,
      code: answer.code,
      reason: answer.reason,
      peer_address: addressOf(request),
      // Of our own failures only: what a stranger sent is in no error that is thrown before this.
      ...(answer.ours ? { error: redactError(thrown) } : {}),
    })
    void reply.code(answer.status).headers(answer.headers).send(answer.body)
  }

  /** What a request hears that was refused; and who sends what isn't HTTP, isn't signed, or was wrong before that was known, is counted. */
  function judged(thrown: unknown, request: FastifyRequest): unknown {
    const { code, reason } = answerTo(thrown, clock())
    const broken = reason === 'no_http' || reason === 'no_host'
    const unsigned = isSignedRoute(request) && code === 'SIGNATURE_INVALID'
    // A body too large or too slow is never compared with its signature. Where its key works, it is a good sender's bad luck.
    const unread =
      isSignedRoute(request) && unreadCodes.has(code) && !proven.has(request) && !welcome.has(sourceOf(request))
    return broken || unsigned || unread ? stranger(thrown, addressOf(request), keyNamed(request)) : thrown
  }

  /** One more from an address that only sends what isn't signed: from some number on it hears that, and costs no call. */
  function stranger(thrown: unknown, address: string, keyId: string): unknown {
    const now = clock()
    watch.saw('signature', address, keyId, answerTo(thrown, now).reason)
    if (!strangers.take(address, now.getTime())) return new DoorRefusal('RATE_LIMITED', 'stranger')
    if (knocking < mostKnocking && knocks.take('', now.getTime())) {
      knocking += 1
      // Not waited for: whoever isn't signed doesn't learn how the database is.
      driver
        .call('door_knock', { address })
        .then((answer) => {
          if ('refused' in answer) strangers.empty(address, clock().getTime())
        })
        .catch((error: unknown) => note('warn', 'a knock could not be counted', { error: redactError(error) }))
        .finally(() => (knocking -= 1))
    }
    return thrown
  }

  function elsewhere(request: FastifyRequest, reply: FastifyReply): DoorRefusal {
    void reply.header('connection', 'close')
    const path = (request.raw.url ?? '').split('?')[0] ?? ''
    const known = Object.entries(routes).find(([route]) =>
      route.endsWith('/:source') ? path.startsWith('/v1/webhooks/') && path.split('/').length === 4 : route === path,
    )
    if (!known) return new DoorRefusal('NOT_FOUND', 'unknown_route')
    void reply.header('allow', known[1].methods)
    return new DoorRefusal('METHOD', 'method')
  }

  /** Which of this door's keys it says it is signed with; '' for none of them, whatever else it says. */
  function keyNamed(request: FastifyRequest): string {
    const named = request.headers[signatureHeaders.key.toLowerCase()]
    return typeof named === 'string' && options.keys().has(named) ? named : ''
  }

  const sourceOf = (request: FastifyRequest) => `${keyNamed(request)}@${addressOf(request)}`

  function addressOf(request: FastifyRequest): string {
    const peer = rateAddress(request.raw.socket.remoteAddress, 'unknown')
    return rateAddress(request.ip, peer)
  }

  function count(route: string, status: number, seconds: number, reason: string | null): void {
    metrics.answered(route, status, seconds)
    if (reason !== null) metrics.refused(reason)
  }

  /** A flood of requests must not be a flood of lines; what was left out is counted. */
  function note(level: 'info' | 'warn' | 'error', message: string, fields: Record<string, unknown>): void {
    if (!lines.take('', clock().getTime())) return void (unlogged += 1)
    logger[level](message, { ...fields, ...(unlogged > 0 ? { not_logged_before: unlogged } : {}) })
    unlogged = 0
  }

  const host = options.host === 'localhost' ? '127.0.0.1' : options.host
  try {
    await app.listen({ host, port: options.port })
  } catch (error) {
    await Promise.all([app.close(), watch.stop()])
    throw deaf(`${host}:${options.port}`, error)
  }
  // True because it listens on a port, not on a pipe.
  const { port } = app.server.address() as AddressInfo

  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`,
    async close() {
      draining = true
      const timer = setTimeout(() => app.server.closeAllConnections(), limits.graceMs)
      try {
        await app.close()
        await watch.stop()
      } finally {
        clearTimeout(timer)
      }
    },
  }
}

function deaf(at: string, error: unknown): unknown {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  const why = {
    EADDRINUSE: 'another process listens there',
    EADDRNOTAVAIL: 'this host does not have that address',
    ENOTFOUND: 'nobody knows a host of that name',
    EACCES: 'this user may not listen there',
  }[code]
  if (why === undefined) return error
  return new TmsError(
    {
      code: 'TOOL_FAILED',
      what: `The door cannot listen on ${at}.`,
      why: `${why} (${code})`,
      next: ['tms serve --help', 'tms up --help'],
    },
    { cause: error },
  )
}

function isSignedRoute(request: FastifyRequest): boolean {
  return request.routeOptions.url?.startsWith('/v1/') === true
}

/** Refused before the body was read to its end. */
const unreadCodes: ReadonlySet<string> = new Set(['BODY_TOO_LARGE', 'MEDIA_TYPE', 'SLOW'])

/** What no body says. After the signature: who isn't signed learns only that. */
function checkForm({ headers, raw }: FastifyRequest, body: Buffer): void {
  const encoding = headers['content-encoding']
  if (encoding !== undefined && encoding !== 'identity') throw new DoorRefusal('MEDIA_TYPE', 'compressed')
  if (body.length > 0 && !/^application\/json[ \t]*(?:;|$)/i.test(headers['content-type'] ?? ''))
    throw new DoorRefusal('MEDIA_TYPE', 'media_type')
  // A query would be signed and ignored: who sends ?dry_run=true must not get the real thing.
  if (raw.url?.includes('?') === true) throw new DoorRefusal('INPUT_INVALID', 'query', 'It takes no query.')
}

/** The rest of what this connection sends isn't waited for. */
function closing(reply: FastifyReply, refusal: DoorRefusal): DoorRefusal {
  void reply.header('connection', 'close')
  return refusal
}

function routeName(request: FastifyRequest): string {
  const { url } = request.routeOptions
  return Object.entries(routes).find(([route]) => route === url)?.[1].name ?? 'unknown'
}

function keyOf(content: unknown, field: string): string {
  const value: unknown =
    typeof content === 'object' && content !== null && Object.hasOwn(content, field)
      ? Reflect.get(content, field)
      : undefined
  if (typeof value === 'string' && value.length >= 1 && value.length <= 200) return value
  if (typeof value === 'number' && Number.isSafeInteger(value)) return String(value)
  throw new DoorRefusal('INPUT_INVALID', 'no_event_key', 'The field that names the event is missing.')
}

/** With exactOptionalPropertyTypes absent and undefined differ, and zod gives either. */
function withoutAbsent<T extends object>(given: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  // True because what is undefined is left out.
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>
  }
}

/** In the same time, however much of it is right. */
function sameSecret(given: string, expected: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(given), digest(expected))
}
