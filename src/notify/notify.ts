import { randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import type { Problem } from '../errors.ts'
import { openTarget } from '../outbox/targets/kinds.ts'
import type { Context, Event, Outcome, Secrets } from '../outbox/targets/target.ts'

/** Whether those who must hear of an incident would. */

type Target = Contract['notify_status']['result']['targets'][number]

export type NotifyStatus = {
  readonly targets: readonly Target[]
  /** Nobody: no target takes incidents, or no worker delivers. Unknown: nothing has arrived yet at one of them. */
  readonly verdict: 'ok' | 'failing' | 'nobody' | 'unknown'
  /** Why nobody would hear of an incident now; null: somebody should. */
  readonly untold: string | null
}

export async function notifyStatus(driver: Driver): Promise<NotifyStatus> {
  const { targets, untold } = granted(await driver.call('notify_status', {}))
  const telling = targets.filter(({ tells }) => tells)
  const verdict =
    telling.length === 0
      ? 'nobody'
      : telling.some(({ failing }) => failing !== null)
        ? 'failing'
        : telling.some(untried)
          ? 'unknown'
          : untold !== null
            ? 'nobody'
            : 'ok'
  return { targets, verdict, untold }
}

function untried({ tells, delivered_at }: Target): boolean {
  return tells && delivered_at === null
}

/** Null when it is known. */
export function unknownStatus({ targets, verdict, untold }: NotifyStatus): Problem | null {
  if (verdict !== 'unknown') return null
  const unknown = targets.filter(untried)
  const names = unknown.map(({ name }) => name)
  // Such an incident pages nobody, so it would prove nothing of a pager.
  const opening = unknown.some(({ kind }) => kind !== 'pagerduty')
    ? ['tms incident open "Does this arrive?" --priority P4']
    : []
  return {
    code: 'NO_DATA',
    what: `Whether ${names.join(', ')} would be told is unknown.`,
    why: `Nothing that was sent arrived there in the last 30 days${untold === null ? '' : `, and ${untold}`}.`,
    next: [...names.map((name) => `tms notify test ${name}`), ...opening],
  }
}

/** One look at the targets: opens an incident for each that fails, ends it for each that is well again. */
export async function watchNotifications(driver: Driver): Promise<Contract['notify_watch']['result']> {
  return granted(await driver.call('notify_watch', { request_id: randomUUID() }))
}

export type Tested = {
  readonly target: string
  readonly kind: string
  readonly host: string
  /** What came back; for a pager also of ending the alert that the test made. */
  readonly steps: readonly { readonly what: string; readonly outcome: Outcome['kind']; readonly said: string }[]
  /** Null: no answer says so; it may have arrived. */
  readonly arrived: boolean | null
  /** The dedup key of an alert that the test made, or may have made, and could not end. */
  readonly open: string | null
}

export type TestOptions = Omit<Context, 'signal'> & {
  readonly target: string
  readonly secrets: Secrets
  readonly signal: AbortSignal
  readonly host: string
  readonly database: string
  readonly pause: (ms: number) => Promise<void>
}

/** How long the end of a test's alert is tried. */
const patienceMs = 5_000
const leastPauseMs = 1_000

/** One notification for real, from this host and with its secrets, past the outbox. */
export async function testTarget(driver: Driver, options: TestOptions): Promise<Tested> {
  const { target: name, secrets, host, database, ...context } = options
  const { kind, config } = granted(await driver.call('notify_target', { target: name }))
  const target = openTarget(kind, config)
  const id = randomUUID()
  const dedupKey = `tms-test-${id}`
  const event = (action: 'trigger' | 'resolve'): Event => ({
    id,
    deliveryId: `test-${id}`,
    topic: 'notify.test',
    tenant: null,
    payload: {
      title: `Test of notifications from ${database}`,
      text: 'Nothing happened. Somebody tries whether this arrives.',
      severity: 'info',
      event_action: action,
      dedup_key: dedupKey,
      host,
    },
    createdAt: context.clock().toISOString(),
    attempt: 1,
    orderingKey: null,
    traceparent: null,
  })
  const steps: Tested['steps'][number][] = []
  const send = (action: 'trigger' | 'resolve') => target.send(secrets, event(action), context)
  const step = (what: string, outcome: Outcome) => {
    const said = outcome.kind === 'delivered' ? (outcome.note ?? 'it arrived') : outcome.why
    steps.push({ what, outcome: outcome.kind, said })
    return outcome.kind === 'delivered'
  }
  const sent = await send('trigger')
  const arrived = step('sent', sent) || (sent.kind === 'retry' && sent.unknown ? null : false)
  if (arrived === false || kind !== 'pagerduty') return { target: name, kind, host, steps, arrived, open: null }
  // An alert that a test leaves open wakes somebody for nothing; it is open too when only the answer got lost.
  const end = await patiently(() => send('resolve'), options)
  const ended = step(end.kind === 'delivered' ? 'ended' : 'not ended', end)
  return { target: name, kind, host, steps, arrived, open: ended ? null : dedupKey }
}

async function patiently(
  send: () => Promise<Outcome>,
  { clock, pause, signal }: Pick<TestOptions, 'clock' | 'pause' | 'signal'>,
): Promise<Outcome> {
  const until = clock().getTime() + patienceMs
  for (;;) {
    const outcome = await send()
    if (outcome.kind !== 'retry' || signal.aborted) return outcome
    const ms = Math.max(outcome.afterMs ?? 0, leastPauseMs)
    if (clock().getTime() + ms > until) return outcome
    await pause(ms)
  }
}

/** Null when it arrived, and nothing is left of it. */
export function testProblem({ target, steps, arrived, open }: Tested): Problem | null {
  // What was sent, where that is in doubt; else how the end of its alert failed.
  const telling = arrived ? steps.at(-1) : steps[0]
  if ((arrived && open === null) || telling === undefined) return null
  const what = {
    true: `the test of ${target} arrived, but its alert could not be ended`,
    false: `the test of ${target} did not arrive`,
    null: `whether the test of ${target} arrived is not known`,
  }
  return {
    code: 'TOOL_FAILED',
    what: what[`${arrived}`],
    why: open === null ? telling.said : `${telling.said}. ${leftOpen(open)}`,
    next: ['tms notify status', 'tms outbox targets'],
  }
}

/** The end may have arrived with its answer lost, or with the second of two keys alone: PagerDuty knows. */
function leftOpen(dedupKey: string): string {
  return `The alert with dedup_key ${dedupKey} is still open unless PagerDuty shows otherwise: resolve it there by hand.`
}
