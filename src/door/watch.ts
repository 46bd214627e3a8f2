import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import type { Logger } from '../redaction/logger.ts'
import { redactError } from '../redaction/redact.ts'

/**
 * What strangers try, summed up and told to the database now and then; and whom it shuts out, kept here so that they cost
 * nothing. A flood is one call a second, however large it is.
 */
export type Watch = {
  /** Seconds for which this source is shut out; null: it isn't. */
  blocked(address: string, keyId: string): number | null
  saw(kind: Seen['kind'], address: string, keyId: string, reason: string): void
  /** Tells what it saw and learns who is shut out. */
  report(): Promise<void>
  stop(): Promise<void>
}

type Seen = Contract['door_report']['args']['events'][number]

export type WatchOptions = {
  readonly driver: Driver
  readonly logger: Logger
  readonly clock: () => Date
  /** How often it tells, when there is something to tell. */
  readonly reportMs: number
  /** How often it asks all the same: other doors and people shut out and let in, too. */
  readonly refreshMs: number
}

/** Sources kept apart between two reports; the others are counted together. */
const mostSources = 1000
/** In one report. The embedded database does one thing at a time, and a halt must not wait for five hundred of these. */
const mostEvents = 100
const crowd = '*'

export function startWatch({ driver, logger, clock, reportMs, refreshMs }: WatchOptions): Watch {
  let blocks = new Map<string, number>()
  const seen = new Map<string, Seen>()
  let reporting: Promise<void> | null = null
  let askedAt = -Infinity
  let failing = false

  const sourceOf = (address: string, keyId: string) => `${keyId}@${address}`

  function add(event: Seen): void {
    const { kind, address, key_id } = event
    const id = `${kind} ${sourceOf(address, key_id)}`
    const before = seen.get(id)
    if (before) seen.set(id, { ...before, reason: event.reason, count: before.count + event.count })
    else if (seen.size < mostSources || address === crowd) seen.set(id, event)
    else add({ ...event, address: crowd, key_id: '' })
  }

  async function tell(): Promise<void> {
    const events = [...seen.values()].slice(0, mostEvents)
    for (const { kind, address, key_id } of events) seen.delete(`${kind} ${sourceOf(address, key_id)}`)
    askedAt = performance.now()
    try {
      const answer = granted(await driver.call('door_report', { events }))
      const now = clock().getTime()
      blocks = new Map(
        answer.blocks.map(({ address, key_id, seconds }) => [sourceOf(address, key_id ?? ''), now + seconds * 1000]),
      )
      failing = false
    } catch (error) {
      for (const event of events) add(event)
      // Once for each trouble, not once a second.
      if (!failing) logger.warn('what strangers tried could not be counted', { error: redactError(error) })
      failing = true
    }
  }

  function report(): Promise<void> {
    reporting ??= tell().finally(() => (reporting = null))
    return reporting
  }

  const timer = setInterval(() => {
    if (seen.size > 0 || performance.now() - askedAt >= refreshMs) void report()
  }, reportMs)
  timer.unref()
  void report()

  return {
    blocked(address, keyId) {
      const until = blocks.get(sourceOf(address, keyId))
      if (until === undefined) return null
      const left = until - clock().getTime()
      return left > 0 ? Math.ceil(left / 1000) : null
    },
    saw: (kind, address, keyId, reason) => add({ kind, address, key_id: keyId, reason, count: 1 }),
    report,
    async stop() {
      clearInterval(timer)
      await reporting
      if (seen.size > 0) await report()
    },
  }
}
