import { TmsError } from '../../errors.ts'
import { file } from './file.ts'
import { http } from './http.ts'
import { n8n } from './n8n.ts'
import { pagerduty } from './pagerduty.ts'
import { slack } from './slack.ts'
import type { Context, Event, Outcome, Secrets, Target } from './target.ts'
import { webhook } from './webhook.ts'

/** A target with its configuration: ready to send. */
export type OpenTarget = {
  readonly kind: string
  send(secrets: Secrets, event: Event, context: Context): Promise<Outcome>
}

/** Every kind there is. A new one is a module like the others and one line here. */
const kinds: ReadonlyMap<string, (rawConfig: unknown) => OpenTarget> = new Map([
  ready(webhook),
  ready(n8n),
  ready(slack),
  ready(pagerduty),
  ready(http),
  ready(file),
])

export const targetKinds: readonly string[] = [...kinds.keys()]

/** Throws a TmsError when there is no such kind or the configuration doesn't fit it. */
export function openTarget(kind: string, rawConfig: unknown): OpenTarget {
  const make = kinds.get(kind)
  if (make) return make(rawConfig)
  throw new TmsError({
    code: 'INPUT_INVALID',
    what: 'there is no such kind of outbox target',
    why: `there are ${targetKinds.join(', ')}`,
    next: ['give one of these as the kind'],
  })
}

function ready<Config>(target: Target<Config>): [string, (rawConfig: unknown) => OpenTarget] {
  return [
    target.kind,
    (rawConfig) => {
      const config = target.parseConfig(rawConfig)
      return { kind: target.kind, send: (secrets, event, context) => target.send(config, secrets, event, context) }
    },
  ]
}
