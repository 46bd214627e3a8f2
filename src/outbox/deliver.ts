import type { Contract } from '../drivers/contract.ts'
import type { Driver, Unlisten } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { exit, TmsError } from '../errors.ts'
import type { Logger } from '../redaction/logger.ts'
import { redactError } from '../redaction/redact.ts'
import { redacted } from './targets/redacted.ts'
import { openTarget } from './targets/kinds.ts'
import type { Context, Outcome, Secrets } from './targets/target.ts'

type Delivery = Contract['outbox_claim']['result']['deliveries'][number]
type Control = Contract['outbox_claim']['result']['control']
type Result = Contract['outbox_finish']['args']['results'][number]

export type DeliveryOptions = Omit<Context, 'signal'> & {
  readonly driver: Driver
  readonly secrets: Secrets
  readonly log: Logger
  readonly pollMs: number
}

export type Deliverer = {
  stats(): { readonly delivered: number; readonly failed: number; readonly sending: number }
  stop(): Promise<void>
}

const mostPayload = 256 * 1024

/** Deliveries under way at once. A slow target fills these; the next claim takes the others' share first. */
const mostAtOnce = 100

/**
 * Takes deliveries out of the outbox and sends them, at least once each. The database says whose turn it is: here nothing
 * is ordered, limited or remembered.
 */
export async function startDelivery(options: DeliveryOptions): Promise<Deliverer> {
  const { driver, secrets, log, pollMs, ...context } = options
  let stopping = false
  const results: Result[] = []
  const sending = new Map<string, { readonly lane: Delivery['lane']; readonly abort: AbortController }>()
  const count = { delivered: 0, failed: 0 }
  let claiming = false
  let heard = 0
  let asking = false
  let controls = 0
  let recording: Promise<void> | null = null
  let reachable = true

  async function attempt(what: string, work: () => Promise<void>): Promise<'done' | 'refused' | 'unreachable'> {
    try {
      await work()
      reachable = true
      return 'done'
    } catch (error) {
      if (reachable) log.warn(`the outbox cannot ${what}`, { error: redactError(error).message })
      reachable = false
      return error instanceof TmsError && error.exit === exit.outside ? 'unreachable' : 'refused'
    }
  }

  async function claim(): Promise<void> {
    if (claiming || stopping) return
    const room = mostAtOnce - sending.size
    if (room <= 0) return
    claiming = true
    const before = { heard, controls }
    await attempt('be read', async () => {
      const { control, deliveries, more = false } = granted(await driver.call('outbox_claim', { limit: room }))
      for (const delivery of deliveries) void send(delivery)
      if (deliveries.length > 0 || more) heard++
      obey(control)
    })
    claiming = false
    // A halt that came between was asked about before these were on their way.
    if (controls !== before.controls) void ask()
    // What was heard while the claim was under way may not have been in its answer.
    if (heard !== before.heard) setImmediate(() => void claim())
  }

  /**
   * A signal on `control` may be anybody's, for any login may send one, or tell of a single tenant: nothing is called back before
   * the database has said that there is a halt, or can't say.
   */
  async function ask(): Promise<void> {
    if (asking || stopping) return
    asking = true
    let before: number
    do {
      before = controls
      const how = await attempt('be asked', async () => {
        obey(granted(await driver.call('outbox_finish', { results: [] })).control)
      })
      if (how !== 'done') callBack()
    } while (controls !== before)
    asking = false
  }

  function obey({ halted }: Control): void {
    if (halted) callBack()
  }

  /** All but what tells people about the halt. */
  function callBack(): void {
    for (const { lane, abort } of sending.values()) if (lane !== 'halt') abort.abort()
  }

  async function send(delivery: Delivery): Promise<void> {
    const abort = new AbortController()
    sending.set(delivery.id, { lane: delivery.lane, abort })
    if (stopping) abort.abort()
    const outcome = await deliverOne(delivery, abort.signal)
    sending.delete(delivery.id)
    results.push({
      id: delivery.id,
      claim: delivery.claim,
      ...asResult(outcome, abort.signal.aborted),
    })
    if (outcome.kind === 'delivered') count.delivered++
    else count.failed++
    record()
  }

  async function deliverOne(delivery: Delivery, signal: AbortSignal): Promise<Outcome> {
    try {
      return await openTarget(delivery.kind, delivery.config).send(
        secrets,
        {
          id: delivery.event,
          deliveryId: delivery.id,
          topic: delivery.topic,
          tenant: delivery.tenant,
          // What is the product's own tells people something; what is a tenant's is work, and goes as it was written.
          payload: delivery.tenant === null ? redacted(delivery.payload, mostPayload).value : delivery.payload,
          createdAt: delivery.created_at,
          attempt: delivery.attempt,
          orderingKey: delivery.ordering_key,
          traceparent: delivery.traceparent,
        },
        { ...context, signal },
      )
    } catch (error) {
      // A configuration that this release can't read: a person has to look, and others go on.
      return { kind: 'rejected', why: redactError(error).message }
    }
  }

  /** One call at a time; what ends meanwhile goes with the next. */
  function record(): void {
    if (recording !== null || results.length === 0) return
    const batch = results.splice(0, 200)
    recording = attempt('be written', async () => {
      obey(granted(await driver.call('outbox_finish', { results: batch })).control)
    }).then((how) => {
      recording = null
      // The next look tries again. What isn't recorded while its lease lasts is sent again, under the same id, and
      // holds up its ordering key until then.
      if (how === 'unreachable') return void results.unshift(...batch)
      // There is room, and what came after these in their keys can go.
      hear()
    })
  }

  function hear(): void {
    heard++
    record()
    void claim()
  }

  const unlisten: Unlisten[] = [
    await driver.listen('outbox', hear),
    await driver.listen('control', () => {
      controls++
      void ask()
      hear()
    }),
  ]
  const timer = setInterval(hear, pollMs)
  hear()

  return {
    stats: () => ({ ...count, sending: sending.size }),
    async stop() {
      clearInterval(timer)
      stopping = true
      for (const { abort } of sending.values()) abort.abort()
      for (const quit of unlisten) await quit().catch(() => undefined)
      const until = Date.now() + 3000
      while ((sending.size > 0 || recording !== null || results.length > 0) && Date.now() < until && reachable) {
        record()
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
    },
  }
}

function asResult(outcome: Outcome, stopped: boolean): Omit<Result, 'id' | 'claim'> {
  switch (outcome.kind) {
    case 'delivered':
      return { outcome: 'delivered' }
    case 'rejected':
      return { outcome: 'rejected', error: outcome.why }
    case 'retry':
      // Called back: no attempt of its own. Whether it arrived is unknown, so it goes out again under the same id.
      if (stopped) return { outcome: 'returned' }
      return {
        outcome: 'retry',
        error: outcome.why,
        ...(outcome.afterMs === undefined ? {} : { after_ms: Math.round(outcome.afterMs) }),
      }
  }
}
