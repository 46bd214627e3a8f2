import * as z from 'zod'
import { isSafe } from './address.ts'
import { hosts, parseTargetConfig, secretPlace, secretSource, url } from './config.ts'
import { deliver, traceIdOf } from './delivery.ts'
import type { Answer } from './exchange.ts'
import { pagerdutyMessage, type PagerdutyMessage } from './pagerduty-message.ts'
import type { Outcome, Target } from './target.ts'

export const pagerdutyUrl = 'https://events.pagerduty.com'
const ownHosts = ['events.pagerduty.com', 'events.eu.pagerduty.com']

const schema = z.strictObject({
  /**
   * Where the routing key is. Two while it is being replaced: the first one triggers, and what ends an alert goes to both,
   * because PagerDuty drops an end that comes with another key than the alert, and says 202 to it.
   */
  routingKeyFrom: z.union([secretSource, z.tuple([secretSource, secretSource])], secretPlace),
  /** https://events.eu.pagerduty.com for accounts of the EU. */
  baseUrl: url
    .refine((text) => !URL.canParse(text) || isSafe(new URL(text)), 'takes an https URL, or one of this host')
    .refine((text) => !URL.canParse(text) || new URL(text).pathname === '/', 'takes a URL without a path')
    .default(pagerdutyUrl),
  /** What the alerts say they are about. */
  source: z.string().min(1).max(255).default('tms'),
  /** Where traces are shown; {traceId} is replaced. */
  traceUrl: url
    .refine((text) => text.includes('{traceId}') && text.length <= 1000, 'takes a URL with {traceId} in it')
    .optional(),
  /** Other hosts that speak like PagerDuty: a proxy. They see the routing key. */
  hosts,
})

type PagerdutyConfig = z.output<typeof schema>

/** An alert or a change event of PagerDuty, Events API v2. A second one with the same dedup key makes no second alert. */
export const pagerduty: Target<PagerdutyConfig> = {
  kind: 'pagerduty',
  parseConfig: (raw) =>
    parseTargetConfig('pagerduty', '{ routingKeyFrom: { env: "PAGERDUTY_ROUTING_KEY" } }', schema, raw),
  async send(config, secrets, event, context) {
    const traceId = traceIdOf(event)
    const traceUrl = traceId === null ? null : (config.traceUrl?.replaceAll('{traceId}', traceId) ?? null)
    const message = pagerdutyMessage(event, config.source, traceUrl)
    if (message === null) return { kind: 'delivered', note: 'pages nobody: it would when it escalates' }
    const url = new URL(message.path, config.baseUrl)
    if (!ownHosts.includes(url.host) && !config.hosts.includes(url.hostname) && !config.hosts.includes(url.host)) {
      return { kind: 'rejected', why: 'the address is not one of PagerDuty, and its host is not listed in hosts' }
    }
    const [first, second] = Array.isArray(config.routingKeyFrom) ? config.routingKeyFrom : [config.routingKeyFrom]
    const ends = message.action === 'acknowledge' || message.action === 'resolve'
    const places = second === undefined || !ends ? [first] : [first, second]
    let outcome: Outcome = { kind: 'delivered' }
    for (const place of places) {
      outcome = await deliver({
        to: { url: url.href },
        hosts: config.hosts,
        secrets,
        context,
        event,
        make: async (_, secret) => {
          const key = await secret(place)
          // Said here, because PagerDuty's own answer is about "length" and a person looks for the wrong thing.
          if (!isRoutingKey(key))
            return { kind: 'rejected', why: 'the routing key is no integration key of Events API v2' }
          return pagerdutyRequest(message, key)
        },
        judge: judgePagerduty,
      })
      if (outcome.kind !== 'delivered') return outcome
    }
    return outcome
  },
}

export function isRoutingKey(key: string): boolean {
  return /^[A-Za-z0-9]{32}$/.test(key)
}

export function pagerdutyRequest({ body }: PagerdutyMessage, routingKey: string) {
  return {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ routing_key: routingKey, ...body }),
  }
}

/** 202 is the only yes, and it means accepted: nobody has been told yet. Tried again are 429, 5xx and lost connections. */
export function judgePagerduty({ status, text, whole }: Answer): Outcome | null {
  if (status === 429 || status >= 500) return null
  if (status === 202) return whole === 'broken' ? null : { kind: 'delivered', note: 'accepted by PagerDuty (202)' }
  if (status >= 200 && status < 300) {
    return { kind: 'retry', why: `answered ${status}, and PagerDuty answers 202: something in between answered` }
  }
  if (status >= 300 && status < 400) return null
  // Its words may repeat what was sent; which field it means is said by a few known ones.
  const field = status === 400 ? fields.find((name) => text.includes(name)) : undefined
  return {
    kind: 'rejected',
    why: `answered ${status}${field === undefined ? '' : `: PagerDuty does not accept ${field}`}`,
  }
}

const fields = ['routing_key', 'event_action', 'dedup_key', 'summary', 'severity', 'source', 'timestamp'] as const
