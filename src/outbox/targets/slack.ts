import * as z from 'zod'
import { hosts, parseTargetConfig, secretSource, url } from './config.ts'
import { deliver, traceIdOf } from './delivery.ts'
import type { Answer } from './exchange.ts'
import { slackMessage } from './slack-message.ts'
import type { Outcome, Target } from './target.ts'

const schema = z.strictObject({
  /** The address of an incoming webhook is its only secret: whoever has it can post. So it is never written down here. */
  urlFrom: secretSource,
  /** Where traces are shown; {traceId} is replaced. */
  traceUrl: url
    .refine((text) => text.includes('{traceId}') && text.length <= 1000, 'takes a URL with {traceId} in it')
    .optional(),
  /** Other hosts that speak like Slack: a proxy, or another product's compatible webhook. */
  hosts,
})

type SlackConfig = z.output<typeof schema>

const slackHosts = ['hooks.slack.com', 'hooks.slack-gov.com']

/**
 * A message to a channel of Slack. Slack knows no idempotency key: an answer that is lost on its way means a second
 * message, with the same delivery id at its foot.
 */
export const slack: Target<SlackConfig> = {
  kind: 'slack',
  parseConfig: (raw) => parseTargetConfig('slack', '{ urlFrom: { env: "SLACK_WEBHOOK_URL" } }', schema, raw),
  send: (config, secrets, event, context) =>
    deliver({
      to: config,
      hosts: config.hosts,
      secrets,
      context,
      event,
      make: async (address) => {
        const own = slackHosts.includes(address.host)
        if (!own && !config.hosts.includes(address.hostname) && !config.hosts.includes(address.host)) {
          return { kind: 'rejected', why: 'the address is not one of Slack, and its host is not listed in hosts' }
        }
        const traceId = traceIdOf(event)
        const traceUrl = traceId === null ? null : (config.traceUrl?.replaceAll('{traceId}', traceId) ?? null)
        return {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify(slackMessage(event, traceUrl)),
        }
      },
      judge: judgeSlack,
    }),
}

/** What Slack says in plain text, and what a person can do. Only texts from here get into an outcome. */
const permanent = {
  invalid_payload: 'Slack does not accept the message',
  invalid_blocks: 'Slack does not accept the blocks of the message',
  no_text: 'the message has no text',
  too_many_attachments: 'the message has too many attachments',
  user_not_found: 'the message names a user that does not exist',
  channel_not_found: 'the channel does not exist any more: make a new webhook',
  channel_is_archived: 'the channel is archived: make a new webhook for another one',
  action_prohibited: 'an admin of the workspace does not allow it',
  posting_to_general_channel_denied: 'only some people may post in this channel',
  no_service: 'the webhook was switched off or removed: make a new one',
  no_service_id: 'the address lacks a part: copy it again',
  no_team: 'the workspace is not known: copy the address again',
  team_disabled: 'the workspace is disabled',
  invalid_token: 'the address is wrong or was revoked: make a new webhook',
  no_active_hooks: 'the webhook is disabled: make a new one',
} as const

export function judgeSlack({ status, text, whole }: Answer): Outcome | null {
  const said = text.trim()
  if (status === 429 || status >= 500) return null
  if (isPermanent(said)) return { kind: 'rejected', why: `answered ${status} ${said}: ${permanent[said]}` }
  // Slack says "ok". Anything else with a 200 is somebody in between, a login page for example.
  if (status === 200 && whole === 'whole' && said !== 'ok') {
    return { kind: 'retry', why: 'answered 200, but not with the "ok" of Slack: something in between answered' }
  }
  return null
}

function isPermanent(said: string): said is keyof typeof permanent {
  return Object.hasOwn(permanent, said)
}
