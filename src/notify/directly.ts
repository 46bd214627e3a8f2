import { isSafe } from '../outbox/targets/address.ts'
import { withDeadline } from '../outbox/targets/deadline.ts'
import { judgeStatus } from '../outbox/targets/delivery.ts'
import { exchange, isAnswered, type Answer, type Request } from '../outbox/targets/exchange.ts'
import { pagerdutyMessage, type Severity } from '../outbox/targets/pagerduty-message.ts'
import { isRoutingKey, judgePagerduty, pagerdutyRequest, pagerdutyUrl } from '../outbox/targets/pagerduty.ts'
import { slackMessage } from '../outbox/targets/slack-message.ts'
import { redacted } from '../outbox/targets/redacted.ts'
import { judgeSlack } from '../outbox/targets/slack.ts'
import type { Event, Outcome } from '../outbox/targets/target.ts'
import { eventBody } from '../outbox/targets/webhook.ts'

/**
 * Tells people without a database: for when it is the database that is gone. One try for each channel, all at once, and an
 * answer for each within the limit; whoever calls says which of them heard nothing.
 */

export type DirectChannels = {
  /** Address of an incoming webhook. */
  readonly slack: string | null
  readonly pagerduty: { readonly routingKey: string; readonly baseUrl?: string | undefined } | null
  /** An address that takes any JSON. */
  readonly alert?: string | null
  readonly fetch: typeof globalThis.fetch
  readonly clock: () => Date
  /** For each channel. */
  readonly limitMs?: number
}

export type DirectMessage = {
  readonly topic: string
  readonly title: string
  readonly text: string
  readonly severity: Severity
  /** The same in every message about one thing: PagerDuty makes one alert of them. */
  readonly dedupKey: string
  /** It ends that alert; nobody is paged. */
  readonly ends?: boolean
  readonly link?: string | null
  /** Plain facts: which database, who, how many. */
  readonly fields?: Readonly<Record<string, string>>
}

export type DirectResult = {
  readonly channel: 'slack' | 'pagerduty' | 'alert'
  /** Null: no answer says so; it may have arrived. */
  readonly told: boolean | null
  /** What came back, or why nothing did. No address and no key in it. */
  readonly why: string
}

const usualLimitMs = 3000
const mostBytes = 32 * 1024

/** The channels that these variables name; none is no error, and its absence is the caller's to say. */
export function directChannels(
  environment: Readonly<Record<string, string | undefined>>,
): Pick<DirectChannels, 'slack' | 'pagerduty' | 'alert'> {
  const of = (name: string): string | null => environment[name] || null
  const routingKey = of('PAGERDUTY_ROUTING_KEY')
  return {
    slack: of('SLACK_WEBHOOK_URL'),
    pagerduty: routingKey === null ? null : { routingKey, baseUrl: of('PAGERDUTY_URL') ?? undefined },
    alert: of('ALERT_WEBHOOK_URL'),
  }
}

export async function notifyDirectly(to: DirectChannels, message: DirectMessage): Promise<readonly DirectResult[]> {
  const now = to.clock().toISOString()
  const { topic, title, text, severity, dedupKey, ends = false, link = null, fields = {} } = message
  const said = { title, text, severity, dedup_key: dedupKey, ...(link === null ? {} : { link }), fields }
  const { fields: payload } = redacted(said, mostBytes)
  const event: Event = {
    id: dedupKey,
    deliveryId: `direct-${now}`,
    topic,
    tenant: null,
    payload,
    createdAt: now,
    attempt: 1,
    orderingKey: null,
    traceparent: null,
  }
  const { slack, pagerduty, alert = null } = to
  const told: Promise<DirectResult>[] = []
  const tell = (channel: DirectResult['channel'], address: string, make: () => Request | null, judge: Judge) =>
    told.push(once(to, address, make, judge).then((result) => ({ channel, ...result })))
  if (slack !== null) tell('slack', slack, () => json(slackMessage(event, null)), judgeSlack)
  if (pagerduty !== null) {
    const made = pagerdutyMessage(
      { ...event, payload: { ...payload, event_action: ends ? 'resolve' : 'trigger' } },
      'tms',
      null,
    )
    tell(
      'pagerduty',
      URL.canParse(made?.path ?? '', pagerduty.baseUrl ?? pagerdutyUrl)
        ? new URL(made?.path ?? '', pagerduty.baseUrl ?? pagerdutyUrl).href
        : '',
      () =>
        made === null || !isRoutingKey(pagerduty.routingKey) ? null : pagerdutyRequest(made, pagerduty.routingKey),
      judgePagerduty,
    )
  }
  if (alert !== null)
    tell(
      'alert',
      alert,
      () => json(eventBody(event)),
      () => null,
    )
  return Promise.all(told)
}

type Judge = (answer: Answer) => Outcome | null

async function once(
  { fetch, clock, limitMs = usualLimitMs }: DirectChannels,
  address: string,
  make: () => Request | null,
  judge: Judge,
): Promise<Omit<DirectResult, 'channel'>> {
  try {
    if (!URL.canParse(address) || !isSafe(new URL(address))) {
      return { told: false, why: 'its address is no https URL' }
    }
    const request = make()
    if (request === null) return { told: false, why: 'its routing key is no integration key of Events API v2' }
    const limits = { signal: new AbortController().signal, timeoutMs: limitMs }
    const ended = await withDeadline(limits, (signal) =>
      exchange(new URL(address), request, { fetch, timeoutMs: limitMs }, signal),
    )
    if ('cut' in ended) return { told: null, why: `no answer within ${limitMs} ms: it may have arrived` }
    if (!isAnswered(ended.value)) return { told: ended.value.unknown ? null : false, why: ended.value.why }
    const outcome = judge(ended.value) ?? judgeStatus(ended.value, clock())
    if (outcome.kind === 'delivered') return { told: true, why: outcome.note ?? `answered ${ended.value.status}` }
    return { told: outcome.kind === 'retry' && outcome.unknown ? null : false, why: outcome.why }
  } catch {
    // One channel's trouble must not keep the others from being told; its words could quote the address.
    return { told: false, why: 'it failed before anything was sent' }
  }
}

function json(body: unknown): Request {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  return { method: 'POST', headers: { 'content-type': 'application/json' }, body: text }
}
