import { receiver, type Check, type Receiver } from '../outbox/targets/receivers.ts'

/** Events API v2 of PagerDuty, as far as what it checks, what it answers, and what becomes of an alert. */

export const routingKey = '0123456789abcdef0123456789abcdef'
export const otherRoutingKey = 'fedcba9876543210fedcba9876543210'

export type Alert = {
  readonly routingKey: string
  readonly dedupKey: string
  readonly summary: string
  readonly severity: string
  state: 'triggered' | 'acknowledged' | 'resolved'
}

export type PagerdutyServer = Receiver & { readonly alerts: Alert[]; readonly changes: string[] }

export async function startPagerduty(): Promise<PagerdutyServer> {
  const alerts: Alert[] = []
  const changes: string[] = []
  const check: Check = (received, method) => {
    const checked = checkPagerduty(received, method)
    if (!('event' in checked)) return checked.answer
    const { event, change } = checked
    if (change) changes.push(event.summary)
    else happen(alerts, event)
    const said = { status: 'success', message: 'Event processed', ...(change ? {} : { dedup_key: event.dedupKey }) }
    return [202, JSON.stringify(said)]
  }
  return Object.assign(await receiver(check), { alerts, changes })
}

type Event = {
  readonly routingKey: string
  readonly action: string
  readonly dedupKey: string
  readonly summary: string
  readonly severity: string
}

/** An end with another routing key, or of an alert that isn't open, is dropped and answered 202 all the same. */
function happen(alerts: Alert[], { routingKey, dedupKey, action, summary, severity }: Event): void {
  const open = alerts.find(
    (alert) => alert.routingKey === routingKey && alert.dedupKey === dedupKey && alert.state !== 'resolved',
  )
  if (action === 'trigger' && !open) alerts.push({ routingKey, dedupKey, summary, severity, state: 'triggered' })
  if (action === 'acknowledge' && open) open.state = 'acknowledged'
  if (action === 'resolve' && open) open.state = 'resolved'
}

type Checked = { readonly event: Event; readonly change: boolean } | { readonly answer: readonly [number, string] }

export function checkPagerduty(
  { headers, path, body }: Pick<Parameters<Check>[0], 'headers' | 'path' | 'body'>,
  method: string,
): Checked {
  if (path !== '/v2/enqueue' && path !== '/v2/change/enqueue') return { answer: [404, ''] }
  if (method !== 'POST') return { answer: [405, ''] }
  if (Buffer.byteLength(body) > 512 * 1024) return { answer: [413, ''] }
  if (headers['content-type'] !== 'application/json') return invalid('Content-Type is not application/json')
  let event: unknown
  try {
    event = JSON.parse(body)
  } catch {
    return invalid('JSON cannot be parsed')
  }
  if (!isObject(event)) return invalid('event is no object')
  const { routing_key: routing, event_action: action, dedup_key: dedup, payload, links = [] } = event
  if (typeof routing !== 'string' || routing.length !== 32)
    return invalid("Length of 'routing_key' is incorrect (should be 32 characters)")
  if (routing !== routingKey && routing !== otherRoutingKey) return invalid('Invalid routing key')
  if (
    !Array.isArray(links) ||
    !links.every((link) => isObject(link) && typeof link.href === 'string' && /^https?:/.test(link.href))
  )
    return invalid("'links' is invalid")
  const about = isObject(payload) ? payload : {}
  const text = (name: string) => (typeof about[name] === 'string' ? about[name] : '')
  const needsSummary = path === '/v2/change/enqueue' || action === 'trigger'
  if (needsSummary) {
    if (text('summary') === '') return invalid("'payload.summary' is missing or blank")
    if (Array.from(text('summary')).length > 1024) return invalid("'payload.summary' is longer than 1024 characters")
    if (!text('summary').isWellFormed()) return invalid("'payload.summary' is no text")
    if (about.timestamp !== undefined && Number.isNaN(Date.parse(text('timestamp'))))
      return invalid("'payload.timestamp' is invalid")
    if (about.custom_details !== undefined && !isObject(about.custom_details))
      return invalid("'payload.custom_details' is invalid")
  }
  const one = { routingKey: routing, action: String(action), summary: text('summary'), severity: text('severity') }
  if (path === '/v2/change/enqueue') return { event: { ...one, dedupKey: '' }, change: true }
  if (!['trigger', 'acknowledge', 'resolve'].includes(String(action))) return invalid("'event_action' is invalid")
  if (dedup !== undefined && (typeof dedup !== 'string' || dedup.length < 1 || Array.from(dedup).length > 255))
    return invalid("'dedup_key' is invalid")
  if (action !== 'trigger' && dedup === undefined) return invalid("'dedup_key' is missing")
  if (action === 'trigger') {
    if (text('source') === '') return invalid("'payload.source' is missing or blank")
    if (!['critical', 'error', 'warning', 'info'].includes(text('severity')))
      return invalid("'payload.severity' is invalid")
  }
  return { event: { ...one, dedupKey: String(dedup) }, change: false }
}

function invalid(error: string): Checked {
  return {
    answer: [400, JSON.stringify({ status: 'invalid event', message: 'Event object is invalid', errors: [error] })],
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
