import * as z from 'zod'
import { signRequest } from '../../signing/request.ts'
import { addressed, checkAddressed, parseTargetConfig, secretPlace, secretSource } from './config.ts'
import { deliver, type Delivery } from './delivery.ts'
import type { Context, Event, SecretSource, Target } from './target.ts'

export const signedExample = '{ url: "https://host/path", keyId: "my-key", secretFrom: { env: "TMS_SECRET_NAME" } }'

/** What webhooks and n8n have in common. */
export const signedFields = {
  ...addressed,
  keyId: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, 'takes letters, digits, ".", "_" and "-"'),
  /** Two while a secret is being replaced: the request is signed with both. */
  secretFrom: z.union([secretSource, z.tuple([secretSource, secretSource])], secretPlace),
}

const schema = z.strictObject(signedFields).superRefine(checkAddressed)
export type SignedConfig = z.output<typeof schema>

/** A signed POST of the event, to a receiver that checks the signature and knows the delivery id again. */
export const webhook: Target<SignedConfig> = {
  kind: 'webhook',
  parseConfig: (raw) => parseTargetConfig('webhook', signedExample, schema, raw),
  send: (config, secrets, event, context) =>
    deliver({
      to: config,
      hosts: config.hosts,
      secrets,
      context,
      event,
      make: (url, secret) => signedRequest(config, url, secret, event, context),
    }),
}

export async function signedRequest(
  { keyId, secretFrom }: SignedConfig,
  url: URL,
  secret: (source: SecretSource) => Promise<string>,
  event: Event,
  { clock, random }: Context,
): ReturnType<Delivery['make']> {
  const body = eventBody(event)
  const [first, second] = Array.isArray(secretFrom) ? secretFrom : [secretFrom]
  const one = await secret(first)
  const signed = signRequest({
    keyId,
    secret: second === undefined ? one : [one, await secret(second)],
    method: 'POST',
    path: url.pathname + url.search,
    body,
    now: clock(),
    nonce: random(16),
  })
  return { method: 'POST', headers: { ...jsonHeaders(event), ...signed }, body }
}

export function jsonHeaders(event: Event): Readonly<Record<string, string>> {
  return {
    'content-type': 'application/json',
    'idempotency-key': event.deliveryId,
    'x-transbot-attempt': String(event.attempt),
  }
}

/**
 * The same bytes in every attempt: receivers that know the id again may also compare the body. The delivery id is in it
 * because headers aren't signed.
 */
export function eventBody({ id, deliveryId, topic, tenant, createdAt, orderingKey, payload }: Event): string {
  return JSON.stringify({ id, deliveryId, topic, tenant, createdAt, orderingKey, payload })
}
