import * as z from 'zod'
import { isSafe, notSafe } from './address.ts'
import { addressed, checkAddressed, parseTargetConfig, secretSource } from './config.ts'
import { deliver, headerSafe, type Delivery } from './delivery.ts'
import type { Event, SecretSource, Target } from './target.ts'
import { fill, templateProblem } from './template.ts'
import { eventBody, jsonHeaders } from './webhook.ts'

/** The connection's own, and those that say how long the body is: with two opinions about that a request can hide in one. */
const ownHeaders =
  /^(host|connection|content-length|transfer-encoding|te|trailer|upgrade|keep-alive|expect|proxy-.*|traceparent|idempotency-key)$/
const secretHeaders = /authorization|cookie|token|secret|password|api-?key/

const headerName = z
  .string()
  .regex(/^[a-z0-9!#$%&'*+.^_`|~-]{1,80}$/i, 'takes the name of a header')
  .refine((name) => !ownHeaders.test(name.toLowerCase()), 'is a header that tms sets itself')

const header = z.union([
  z.string().max(1024),
  z.strictObject({ from: secretSource, prefix: z.string().max(64).default('') }),
])

const schema = z
  .strictObject({
    ...addressed,
    method: z.enum(['POST', 'PUT', 'PATCH', 'DELETE']).default('POST'),
    headers: z.record(headerName, header).default({}),
    /** Without one the body is the same as a webhook's. */
    body: z.json().optional(),
  })
  .superRefine(checkAddressed)
  .superRefine(({ headers, body, url }, context) => {
    if (url !== undefined && hasSecretHeaders(headers) && URL.canParse(url) && !isSafe(new URL(url))) {
      context.addIssue({ code: 'custom', path: ['url'], message: `${notSafe}: a header carries a secret` })
    }
    for (const [name, value] of Object.entries(headers)) {
      const literal = typeof value === 'string' && secretHeaders.test(name.toLowerCase())
      const message = literal
        ? 'holds a secret: give it as { from: { env: NAME }, prefix: "Bearer " }'
        : typeof value === 'string'
          ? templateProblem(value)
          : null
      if (message !== null) context.addIssue({ code: 'custom', path: ['headers', name], message })
    }
    const message = body === undefined ? null : templateProblem(body)
    if (message !== null) context.addIssue({ code: 'custom', path: ['body'], message })
  })

type HttpConfig = z.output<typeof schema>

/** A request to an API that has its own form: method, headers and body by configuration, no signature. */
export const http: Target<HttpConfig> = {
  kind: 'http',
  parseConfig: (raw) =>
    parseTargetConfig('http', '{ url: "https://host/path", body: { text: "{{payload.text}}" } }', schema, raw),
  send: (config, secrets, event, context) =>
    deliver({
      to: config,
      hosts: config.hosts,
      secretHeaders: hasSecretHeaders(config.headers),
      secrets,
      context,
      event,
      make: (_, secret) => request(config, event, secret),
    }),
}

function hasSecretHeaders(headers: Readonly<Record<string, unknown>>): boolean {
  return Object.values(headers).some((value) => typeof value !== 'string')
}

async function request(
  { method, headers, body }: HttpConfig,
  event: Event,
  secret: (source: SecretSource) => Promise<string>,
): ReturnType<Delivery['make']> {
  const sent: Record<string, string> = { ...jsonHeaders(event) }
  for (const [name, value] of Object.entries(headers)) {
    if (typeof value !== 'string') {
      const text = value.prefix + (await secret(value.from))
      if (!headerSafe(text))
        return { kind: 'retry', why: `the secret for the header ${name} can not be sent in a header` }
      sent[name.toLowerCase()] = text
      continue
    }
    const part = fill(value, event)
    if ('missing' in part) return { kind: 'rejected', why: `the event has no {{${part.missing}}}` }
    const text = typeof part.value === 'string' ? part.value : JSON.stringify(part.value)
    // A line break would start a header of its own.
    if (!headerSafe(text))
      return { kind: 'rejected', why: `the value for the header ${name} can not be sent in a header` }
    sent[name.toLowerCase()] = text
  }
  if (body === undefined) return { method, headers: sent, body: eventBody(event) }
  const part = fill(body, event)
  if ('missing' in part) return { kind: 'rejected', why: `the event has no {{${part.missing}}}` }
  return { method, headers: sent, body: JSON.stringify(part.value) }
}
