import { createHash } from 'node:crypto'
import { redacted } from './redacted.ts'
import type { Event, Json } from './target.ts'

/** What PagerDuty accepts; above it an event is refused, or cut without a word. */
export const pagerdutyLimits = { summary: 1024, dedupKey: 255, bytes: 512 * 1024, details: 64 * 1024 } as const

export const pagerdutyActions = ['trigger', 'acknowledge', 'resolve', 'change'] as const
export type PagerdutyAction = (typeof pagerdutyActions)[number]

export type Severity = 'critical' | 'error' | 'warning' | 'info'

export type PagerdutyMessage = {
  readonly action: PagerdutyAction
  readonly path: '/v2/enqueue' | '/v2/change/enqueue'
  /** Everything but the routing key. */
  readonly body: Readonly<Record<string, Json>>
}

/** What the product's own topics mean to somebody who is paged. */
const actions: ReadonlyMap<string, PagerdutyAction> = new Map([
  ['incident.acked', 'acknowledge'],
  ['incident.resolved', 'resolve'],
  ['incident.closed', 'resolve'],
  // Of a halt that came after another one of its incident was lifted: it has an alert of its own.
  ['incident.lifted', 'resolve'],
  // The fleet works again; whether the incident is over is the incident's to say.
  ['fleet.resumed', 'change'],
])
/** Page people at once only when it is of the highest priority; else when it escalates. */
const patient = new Set(['incident.opened', 'incident.late'])
const changes = /^(deploy|rollback|release)\./
const priorities: ReadonlyMap<string, Severity> = new Map([
  ['P1', 'critical'],
  ['P2', 'error'],
  ['P3', 'warning'],
  ['P4', 'info'],
  ['critical', 'critical'],
  ['high', 'error'],
  ['error', 'error'],
  ['medium', 'warning'],
  ['warning', 'warning'],
  ['low', 'info'],
  ['info', 'info'],
])

/**
 * An event as PagerDuty wants it; null when it pages nobody: an incident of lower priority is paged when it escalates.
 * A payload may say `dedup_key`, `severity` or `priority`, `title`, `source`, `link` and `event_action` itself.
 */
export function pagerdutyMessage(event: Event, source: string, traceUrl: string | null): PagerdutyMessage | null {
  const { value, fields: payload } = redacted(event.payload, pagerdutyLimits.details)
  const details = typeof value === 'object' && value !== null && !Array.isArray(value) ? value : { payload: value }
  const text = (name: string): string | null => {
    const value = payload[name]
    return typeof value === 'string' && value.trim() !== '' ? value.trim() : null
  }
  const said = pagerdutyActions.find((action) => action === payload['event_action'])
  const action = said ?? actions.get(event.topic) ?? (changes.test(event.topic) ? 'change' : 'trigger')
  const severity = priorities.get(text('severity') ?? '') ?? priorities.get(text('priority') ?? '') ?? 'error'
  if (patient.has(event.topic) && said === undefined && severity !== 'critical') return null

  const summary = oneLine(text('title') ?? text('text') ?? event.topic, pagerdutyLimits.summary)
  const links = [...link('Open', event.tenant === null ? text('link') : null), ...link('Trace', traceUrl)]
  const about = { summary, timestamp: event.createdAt, source: oneLine(text('source') ?? source, 255) }
  if (action === 'change') {
    return { action, path: '/v2/change/enqueue', body: { payload: { ...about, custom_details: details }, links } }
  }
  const own: unknown =
    typeof event.payload === 'object' && event.payload !== null ? Reflect.get(event.payload, 'dedup_key') : null
  const dedupKey = dedupKeyOf(typeof own === 'string' && own !== '' ? own : `${event.topic}:${event.id}`)
  const path = '/v2/enqueue'
  if (action !== 'trigger') return { action, path, body: { event_action: action, dedup_key: dedupKey } }
  return {
    action,
    path,
    body: {
      event_action: action,
      dedup_key: dedupKey,
      client: 'tms',
      links,
      payload: {
        ...about,
        severity,
        component: event.tenant ?? 'fleet',
        class: oneLine(event.topic, 255),
        custom_details: details,
      },
    },
  }
}

/** The same for the same incident, always: with another one an alert would never end. */
export function dedupKeyOf(key: string): string {
  const text = key.toWellFormed()
  if (text.length <= pagerdutyLimits.dedupKey) return text
  return `${cut(text, 180)}:${createHash('sha256').update(text).digest('hex')}`
}

function link(text: string, href: string | null): readonly { readonly href: string; readonly text: string }[] {
  if (href === null || href.length > 3000 || !URL.canParse(href)) return []
  return /^https?:$/.test(new URL(href).protocol) ? [{ href, text }] : []
}

function oneLine(text: string, longest: number): string {
  const line = text.toWellFormed().replace(/\s+/g, ' ').trim()
  return line.length <= longest ? line : `${cut(line, longest - 1)}…`
}

/** Never through the middle of a character that takes two. */
function cut(text: string, longest: number): string {
  return text.slice(0, longest).replace(/[\ud800-\udbff]$/, '')
}
