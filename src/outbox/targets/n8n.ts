import * as z from 'zod'
import { checkAddressed, parseTargetConfig } from './config.ts'
import { deliver } from './delivery.ts'
import type { Answer } from './exchange.ts'
import type { Outcome, Target } from './target.ts'
import { signedExample, signedFields, signedRequest, type SignedConfig } from './webhook.ts'

const schema = z
  .strictObject(signedFields)
  .superRefine(checkAddressed)
  .superRefine(({ url }, context) => {
    if (url !== undefined && isTestUrl(url)) {
      context.addIssue({
        code: 'custom',
        path: ['url'],
        message:
          'is a test URL of n8n: that one works once, while somebody watches; take the production URL (/webhook/)',
      })
    }
  })

/** A workflow of n8n that starts with a webhook node. Signed like a webhook; the workflow checks it. */
export const n8n: Target<SignedConfig> = {
  kind: 'n8n',
  parseConfig: (raw) => parseTargetConfig('n8n', signedExample, schema, raw),
  send: (config, secrets, event, context) =>
    deliver({
      to: config,
      hosts: config.hosts,
      secrets,
      context,
      event,
      make: async (url, secret) =>
        isTestUrl(url.href)
          ? { kind: 'rejected', why: 'the address is a test URL of n8n: take the production URL' }
          : signedRequest(config, url, secret, event, context),
      judge: judgeN8n,
    }),
}

function isTestUrl(url: string): boolean {
  return /\/webhook-test(\/|$)/.test(new URL(url).pathname)
}

/**
 * n8n forgets its webhooks while it restarts or a workflow is saved, and says so with a 404 of its own. Publishing the
 * workflow mends that, so it is no reason to give up; any other 404 is.
 */
function judgeN8n({ status, text }: Answer): Outcome | null {
  if (status !== 404 || !/webhook[^]{0,300}is not registered/.test(text)) return null
  return { kind: 'retry', why: 'answered 404: no active workflow of n8n listens there, for POST' }
}
