import type { ReadableSpan } from '@opentelemetry/sdk-trace'

type Redact = (value: unknown) => unknown
type Value = string | number | boolean | readonly (string | number | boolean | null | undefined)[]

/** Stands for a value that can't be proved clean. */
const unreadable = '[unreadable]'

/** Characters of one value. Stack traces fit. */
const longest = 4096

/**
 * The only way from a span to the wire. Attributes, events, status and names are redacted here and nowhere else, so
 * that nobody who adds a span can forget it.
 */
export function redactSpan(span: ReadableSpan, redact: Redact): ReadableSpan {
  const context = span.spanContext()
  const { message } = span.status
  return {
    name: safeText(span.name, redact),
    kind: span.kind,
    spanContext: () => context,
    ...(span.parentSpanContext === undefined ? {} : { parentSpanContext: span.parentSpanContext }),
    startTime: span.startTime,
    endTime: span.endTime,
    duration: span.duration,
    ended: span.ended,
    status: { code: span.status.code, ...(message === undefined ? {} : { message: safeText(message, redact) }) },
    attributes: safeAttributes(span.attributes, redact),
    // Nothing here makes links, and what isn't redacted doesn't leave.
    links: [],
    events: span.events.map((event) => ({
      ...event,
      name: safeText(event.name, redact),
      attributes: safeAttributes(event.attributes ?? {}, redact),
    })),
    resource: span.resource,
    instrumentationScope: span.instrumentationScope,
    droppedAttributesCount: span.droppedAttributesCount,
    droppedEventsCount: span.droppedEventsCount,
    droppedLinksCount: span.droppedLinksCount,
  }
}

export function safeText(text: string, redact: Redact): string {
  try {
    const clean = redact(text)
    return typeof clean === 'string' ? cut(clean) : unreadable
  } catch {
    return unreadable
  }
}

/** One by one, each under its name: redaction goes by names too, and one bad value must not cost the others. */
function safeAttributes(attributes: Readonly<Record<string, unknown>>, redact: Redact) {
  return Object.fromEntries(
    Object.entries(attributes).flatMap(([key, value]): [string, string | number | boolean | string[]][] => {
      const clean = safeEntry(key, value, redact)
      return clean === null ? [] : [clean]
    }),
  )
}

function safeEntry(key: string, value: unknown, redact: Redact): [string, string | number | boolean | string[]] | null {
  try {
    const clean = redact({ [key]: value })
    const [entry, ...others] = entriesOf(clean)
    if (entry === undefined || others.length > 0) return [safeText(key, redact), unreadable]
    const [name, safe] = entry
    if (name === '' || !isValue(safe)) return null
    return [cut(name), typeof safe === 'object' ? safe.map((item) => cut(String(item))) : cutValue(safe)]
  } catch {
    return [safeText(key, redact), unreadable]
  }
}

function entriesOf(value: unknown): [string, unknown][] {
  return value !== null && typeof value === 'object' ? Object.entries(value) : []
}

function isValue(value: unknown): value is Value {
  return ['string', 'number', 'boolean'].includes(typeof value) || Array.isArray(value)
}

function cutValue(value: string | number | boolean): string | number | boolean {
  return typeof value === 'string' ? cut(value) : value
}

/** After redaction, never before: half a secret isn't recognised. */
function cut(text: string): string {
  return text.length <= longest ? text : `${text.slice(0, longest)}… (${text.length - longest} more)`
}
