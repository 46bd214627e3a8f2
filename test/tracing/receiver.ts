import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { onTestFinished } from 'vitest'
import {
  ExportTraceServiceRequest,
  ExportTraceServiceResponse,
  type AnyValue,
  type ExportRequest,
  type KeyValue,
  type ProtoSpan,
} from './definitions.ts'

export type ReceivedSpan = {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string
  readonly name: string
  readonly kind: number
  readonly flags: number
  readonly attributes: Readonly<Record<string, unknown>>
  readonly events: readonly { readonly name: string; readonly attributes: Readonly<Record<string, unknown>> }[]
  readonly status: { readonly code: number; readonly message: string }
  readonly resource: Readonly<Record<string, unknown>>
  readonly scope: { readonly name: string; readonly version: string }
}

export type Receiver = {
  readonly url: string
  /** Of all requests that were in order. */
  readonly spans: ReceivedSpan[]
  /** Why requests were refused. Empty, or the exporter is broken. */
  readonly refusals: string[]
  readonly bodies: Buffer[]
  readonly requests: { readonly path: string; readonly headers: IncomingMessage['headers'] }[]
}

export type Answer = (response: ServerResponse, request: IncomingMessage) => void

/** An OTLP receiver that takes nothing which isn't right. `answer` stands in for a collector in trouble. */
export async function startReceiver(answer?: Answer): Promise<Receiver> {
  const receiver: Receiver = { url: '', spans: [], refusals: [], bodies: [], requests: [] }
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const body = Buffer.concat(parts)
      receiver.bodies.push(body)
      receiver.requests.push({ path: request.url ?? '', headers: request.headers })
      try {
        if (request.method !== 'POST' || request.url !== '/v1/traces')
          throw new Error(`${request.url ?? ''} is no path`)
        if (request.headers['content-type'] !== 'application/x-protobuf') throw new Error('not application/x-protobuf')
        const spans = spansIn(body)
        if (answer) return answer(response, request)
        receiver.spans.push(...spans)
        response.writeHead(200, { 'content-type': 'application/x-protobuf' })
        response.end(ExportTraceServiceResponse.encode({}).finish())
      } catch (error) {
        receiver.refusals.push(String(error))
        response.writeHead(400).end()
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return Object.assign(receiver, { url: `http://127.0.0.1:${address.port}` })
}

/** The spans of a request, or an error that says what is wrong with it. */
export function spansIn(body: Uint8Array): ReceivedSpan[] {
  const request = ExportTraceServiceRequest.decode(body)
  // The decoder skips unknown fields and reads over wrong wire types. What it then writes differs from what came in.
  const written = ExportTraceServiceRequest.encode(request).finish()
  if (Buffer.compare(written, body) !== 0) throw new Error('not the encoding of an ExportTraceServiceRequest')
  const spans = flattened(request)
  if (spans.length === 0) throw new Error('no spans')
  return spans
}

function flattened(request: ExportRequest): ReceivedSpan[] {
  return request.resourceSpans.flatMap(({ resource, scopeSpans }) => {
    const shared = valuesOf(resource?.attributes ?? [])
    if (typeof shared['service.name'] !== 'string') throw new Error('no service.name')
    return scopeSpans.flatMap(({ scope, spans }) => {
      if (!scope?.name) throw new Error('no scope')
      const { name, version } = { name: scope.name, version: scope.version ?? '' }
      return spans.map((span) => ({ ...received(span), resource: shared, scope: { name, version } }))
    })
  })
}

function received(span: ProtoSpan): Omit<ReceivedSpan, 'resource' | 'scope'> {
  const name = span.name ?? ''
  const kind = span.kind ?? 0
  const start = timeOf(span.startTimeUnixNano)
  const end = timeOf(span.endTimeUnixNano)
  if (name === '') throw new Error('a span has no name')
  if (end < start) throw new Error(`${name} ends before it starts`)
  if (kind < 1 || kind > 5) throw new Error(`${kind} is no kind`)
  const status = { code: span.status?.code ?? 0, message: span.status?.message ?? '' }
  if (![0, 1, 2].includes(status.code)) throw new Error(`${status.code} is no status`)
  if (span.links.length > 0) throw new Error('nothing here makes links')
  return {
    traceId: hexOf(span.traceId, 16),
    spanId: hexOf(span.spanId, 8),
    // Null, not empty: an empty one has no business on the wire.
    parentSpanId: span.parentSpanId === null ? '' : hexOf(span.parentSpanId, 8),
    name,
    kind,
    flags: span.flags ?? 0,
    attributes: valuesOf(span.attributes),
    events: span.events.map((event) => {
      const time = timeOf(event.timeUnixNano)
      if (!event.name) throw new Error('an event has no name')
      if (time < start || time > end) throw new Error(`${event.name} is outside of ${name}`)
      return { name: event.name, attributes: valuesOf(event.attributes) }
    }),
    status,
  }
}

function hexOf(bytes: Uint8Array | null, length: number): string {
  const hex = Buffer.from(bytes ?? []).toString('hex')
  if (hex.length !== 2 * length || /^0*$/.test(hex)) throw new Error(`"${hex}" is no id of ${length} bytes`)
  return hex
}

function timeOf(time: { toString(): string } | null): bigint {
  const nanoseconds = BigInt(time?.toString() ?? 0)
  if (nanoseconds <= 0n) throw new Error('a time is missing')
  return nanoseconds
}

function valuesOf(attributes: readonly KeyValue[]): Record<string, unknown> {
  const entries = attributes.map(({ key, value }): [string, unknown] => [key ?? '', valueOf(value ?? {})])
  if (entries.some(([key]) => key === '')) throw new Error('an attribute has no name')
  if (new Set(entries.map(([key]) => key)).size < entries.length) throw new Error('an attribute is there twice')
  return Object.fromEntries(entries)
}

function valueOf(value: AnyValue): unknown {
  if (value.arrayValue) return value.arrayValue.values.map(valueOf)
  if (value.intValue !== undefined && value.intValue !== null) return Number(value.intValue.toString())
  return value.stringValue ?? value.boolValue ?? value.doubleValue ?? null
}
