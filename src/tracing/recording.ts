import {
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace as api,
  TraceFlags,
  type Context,
  type Span,
} from '@opentelemetry/api'
import { defaultResource, resourceFromAttributes } from '@opentelemetry/resources'
import { AlwaysOnSampler, TracerProvider, type ReadableSpan } from '@opentelemetry/sdk-trace'
import { TmsError } from '../errors.ts'
import { startExport } from './export.ts'
import { redactSpan, safeText } from './redacted.ts'
import { Unrecorded, type Attributes, type SpanKind as Kind, type TaskInfo, type Trace } from './trace.ts'
import { childOf, formatTraceparent, type RandomHex, type Traceparent } from './traceparent.ts'
import type { Exported, QueueLimits, TracingOptions } from './options.ts'

export type Recording = {
  task<T>(info: TaskInfo, parent: Traceparent | null, own: Traceparent, work: (trace: Trace) => Promise<T>): Promise<T>
  flush(): Promise<void>
  stop(): Promise<void>
  exported(): Exported
}

type RecordingOptions = TracingOptions & {
  readonly endpoint: string
  readonly limits: QueueLimits
  readonly random: RandomHex
}

type Place = {
  readonly name: string
  readonly kind: SpanKind
  readonly attributes: Attributes
  readonly parent: Context
  readonly own: Traceparent
}

/**
 * The part that knows OpenTelemetry. Nothing is registered globally and no `OTEL_*` variable is read: the SDK only makes
 * spans, whose ids and sampling were decided before, so that a run has its trace id with or without them.
 */
export function startRecording(options: RecordingOptions): Recording {
  const { random, redact } = options
  const queue = startExport(options)
  let next: Traceparent = { traceId: '', spanId: '', sampled: true }

  const provider = new TracerProvider({
    resource: defaultResource().merge(
      resourceFromAttributes({
        'service.name': safeText(options.serviceName, redact),
        'service.version': safeText(options.serviceVersion, redact),
        'deployment.environment.name': safeText(options.environment, redact),
      }),
    ),
    sampler: new AlwaysOnSampler(),
    idGenerator: { generateTraceId: () => next.traceId, generateSpanId: () => next.spanId },
    // No limit of the SDK on the length of values: it would cut before redaction, and half a secret isn't recognised.
    spanLimits: { attributeCountLimit: 64, eventCountLimit: 16, linkCountLimit: 0 },
    spanProcessors: [
      {
        onStart: () => undefined,
        onEnd: (span: ReadableSpan) => queue.add(redactSpan(span, redact)),
        forceFlush: async () => undefined,
        shutdown: async () => undefined,
      },
    ],
  })
  const tracer = provider.getTracer('tms', options.serviceVersion)

  /** Null when the SDK refuses: the work goes on without a span. */
  const begin = ({ name, kind, attributes, parent, own }: Place): Span | null =>
    quietly(() => {
      // Read by the SDK before startSpan returns.
      next = own
      return tracer.startSpan(name, { kind, attributes: present(attributes) }, parent)
    })

  const inSpan = async <T>(place: Place, work: (trace: Trace) => Promise<T>): Promise<T> => {
    const { own } = place
    const span = begin(place)
    if (span === null) return work(new Unrecorded(own))
    const context = api.setSpan(ROOT_CONTEXT, span)
    let failure: { readonly error: unknown } | null = null
    const fail = (error: unknown): void => {
      // Reported and then thrown is one failure.
      if (failure !== null && failure.error === error) return
      failure = { error }
      quietly(() => markFailed(span, error))
    }
    try {
      return await work({
        traceparent: formatTraceparent(own),
        traceId: own.traceId,
        sampled: true,
        span: (name, attributes, inner, kind = 'internal') =>
          inSpan({ name, kind: kindOf(kind), attributes, parent: context, own: childOf(own, random) }, inner),
        fail,
      })
    } catch (error) {
      fail(error)
      throw error
    } finally {
      quietly(() => span.end())
    }
  }

  return {
    task: (info, parent, own, work) =>
      inSpan(
        {
          name: info.name,
          kind: SpanKind.CONSUMER,
          attributes: taskAttributes(info),
          parent: parent === null ? ROOT_CONTEXT : remote(parent),
          own,
        },
        work,
      ),
    flush: () => queue.flush(),
    stop: () => queue.stop(),
    exported: () => queue.exported(),
  }
}

/** OpenTelemetry's names where it has them: the queue of tasks is a messaging system, and an agent a group of consumers. */
function taskAttributes({ agent, fn, tenant, taskId, attempt }: TaskInfo): Attributes {
  return {
    'messaging.system': 'tms',
    'messaging.operation.name': 'execute',
    'messaging.operation.type': 'process',
    'messaging.destination.name': fn,
    'messaging.consumer.group.name': agent,
    'messaging.message.id': taskId,
    'tms.agent': agent,
    'tms.fn': fn,
    'tms.tenant': tenant,
    'tms.task.attempt': attempt,
  }
}

function kindOf(kind: Kind): SpanKind {
  switch (kind) {
    case 'internal':
      return SpanKind.INTERNAL
    case 'client':
      return SpanKind.CLIENT
    case 'producer':
      return SpanKind.PRODUCER
  }
}

function remote({ traceId, spanId }: Traceparent): Context {
  return api.setSpanContext(ROOT_CONTEXT, { traceId, spanId, traceFlags: TraceFlags.SAMPLED, isRemote: true })
}

function markFailed(span: Span, error: unknown): void {
  const { type, message, stack } = described(error)
  span.setAttribute('error.type', type)
  span.addEvent('exception', {
    'exception.type': type,
    'exception.message': message,
    ...(stack === undefined ? {} : { 'exception.stacktrace': stack }),
  })
  span.setStatus({ code: SpanStatusCode.ERROR, message })
}

/** Anything can be thrown, with getters that throw themselves and a message that is no text. */
function described(error: unknown): { type: string; message: string; stack?: string } {
  if (!(error instanceof Error)) return { type: '_OTHER', message: textOf(() => error) ?? 'unreadable' }
  const type = textOf(() => (error instanceof TmsError ? error.code : error.name)) ?? 'Error'
  const message = textOf(() => error.message) ?? 'unreadable'
  const stack = textOf(() => error.stack ?? '')
  return { type, message, ...(stack ? { stack } : {}) }
}

function textOf(read: () => unknown): string | null {
  return quietly(() => String(read()))
}

/** What the SDK takes: no readonly arrays, nothing absent. */
function present(attributes: Attributes): Record<string, string | number | boolean | string[]> {
  return Object.fromEntries(
    Object.entries(attributes).flatMap(([key, value]): [string, string | number | boolean | string[]][] => {
      if (value === null || value === undefined) return []
      return [[key, typeof value === 'object' ? [...value] : value]]
    }),
  )
}

/** Tracing looks on: whatever goes wrong in it is no reason for the work to fail. */
function quietly<T>(attempt: () => T): T | null {
  try {
    return attempt()
  } catch {
    return null
  }
}
