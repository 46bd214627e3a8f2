import type * as z from 'zod'

/** Any JSON value. */
export type Json = z.core.util.JSONType

/** What is delivered. The same event may go to several targets: each of those is a delivery of its own. */
export type Event = {
  readonly id: string
  /** The same in every attempt: by it a receiver knows what it has already. */
  readonly deliveryId: string
  readonly topic: string
  /** Null: an event of the product itself, which belongs to no tenant. */
  readonly tenant: string | null
  readonly payload: Json
  readonly createdAt: string
  /** 1 for the first. */
  readonly attempt: number
  readonly orderingKey: string | null
  /** W3C trace context, so that the receiver's spans join the trace. */
  readonly traceparent: string | null
}

/**
 * What became of one attempt. `why` and `note` are stored and shown: they hold nothing that came from a secret, an
 * address or an answer's text.
 */
export type Outcome =
  | { readonly kind: 'delivered'; readonly note?: string }
  /** It may work later. `afterMs` is what the receiver asked for; `unknown`: it was sent and no answer says whether it arrived. */
  | { readonly kind: 'retry'; readonly why: string; readonly afterMs?: number; readonly unknown?: true }
  /** It will never work like this: a person has to look. */
  | { readonly kind: 'rejected'; readonly why: string }

/** Where a secret is. Only this is stored; the secret itself stays on the host that delivers. */
export type SecretSource = { readonly env: string } | { readonly file: string }

/** Looks a secret up. Throws when it isn't there; which names and files may be asked for is its decision. */
export type Secrets = (source: SecretSource) => Promise<string>

/** What a target needs of the world. */
export type Context = {
  /** Aborted when the worker stops. */
  readonly signal: AbortSignal
  readonly fetch: typeof globalThis.fetch
  /** The addresses behind a host name, for the check that none of them is a private one. */
  readonly lookup: (hostname: string) => Promise<readonly string[]>
  readonly clock: () => Date
  readonly random: (bytes: number) => Uint8Array
  /** Where the target `file` writes. */
  readonly folder: string
  /** For the whole attempt: finding the secret and the host, sending, and the answer. */
  readonly timeoutMs: number
}

export type Target<Config> = {
  readonly kind: string
  /** Throws a TmsError that names the field and what belongs there. */
  parseConfig(raw: unknown): Config
  /** Never throws for what happens outside. */
  send(config: Config, secrets: Secrets, event: Event, context: Context): Promise<Outcome>
}
