import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'

/**
 * OpenMetrics. No label says a tenant, an address, a key or a person: whoever reads the metrics need not be somebody who may
 * know the customers, and labels that callers choose would grow without end.
 */
export type Metrics = {
  answered(route: string, status: number, seconds: number): void
  /** A request that wasn't let in, by one of a few reasons. */
  refused(reason: string): void
  working(change: 1 | -1): void
  render(): Promise<{ readonly type: string; readonly text: string }>
}

/** Scrapers come in twos and threes. */
const freshMs = 5_000
const readMs = 3_000

export function createMetrics({
  reads,
  clock,
}: {
  readonly reads: Driver | null
  readonly clock: () => Date
}): Metrics {
  const registry = new Registry<typeof Registry.OPENMETRICS_CONTENT_TYPE>()
  registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE)
  const registers = [registry]
  const requests = new Counter({
    name: 'tms_door_requests_total',
    help: 'Requests answered.',
    labelNames: ['route', 'status'],
    registers,
  })
  const duration = new Histogram({
    name: 'tms_door_request_seconds',
    help: 'From the end of the headers to the end of the answer.',
    labelNames: ['route'],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    registers,
  })
  const refusals = new Counter({
    name: 'tms_door_refused_total',
    help: 'Requests not let in, by reason.',
    labelNames: ['reason'],
    registers,
  })
  const inFlight = new Gauge({ name: 'tms_door_in_flight', help: 'Admitted requests being worked on.', registers })

  const fleet = new Registry<typeof Registry.OPENMETRICS_CONTENT_TYPE>()
  fleet.setContentType(Registry.OPENMETRICS_CONTENT_TYPE)
  const gauge = (name: string, help: string, labelNames: string[] = []) =>
    new Gauge({ name, help, labelNames, registers: [fleet] })
  const gauges = {
    halted: gauge('tms_fleet_halted', '1 while the fleet is halted.'),
    safeMode: gauge('tms_fleet_safe_mode', '1 in safe mode.'),
    limit: gauge('tms_fleet_concurrency_limit', 'Handlers that may run at once.'),
    workers: gauge('tms_workers', 'Workers with a live lease.'),
    running: gauge('tms_tasks_running', 'Tasks that run.', ['agent']),
    waiting: gauge('tms_tasks_waiting', 'Tasks that wait, counted to a thousand in each queue.', ['agent']),
    approval: gauge('tms_tasks_awaiting_approval', 'Finished tasks that wait for a person.', ['agent']),
    breaker: gauge('tms_breaker_open', '1 while the breaker of an agent is not closed.', ['agent']),
    undelivered: gauge('tms_outbox_waiting', 'Deliveries that wait.'),
    dead: gauge('tms_outbox_dead', 'Deliveries given up.'),
    lag: gauge('tms_outbox_lag_p95_seconds', 'Lag of the outbox; absent without samples.'),
  }
  const readable = new Gauge({
    name: 'tms_fleet_readable',
    help: '1 when the numbers of the fleet could be read. They are absent otherwise: unknown is not zero.',
    registers,
  })
  let last: { readonly at: number; readonly text: Promise<string | null> } | null = null

  async function readFleet(driver: Driver): Promise<string | null> {
    try {
      const signal = AbortSignal.timeout(readMs)
      const [list, lag] = await Promise.all([
        driver.call('agents_list', {}, { signal }).then(granted),
        driver.call('outbox_lag', {}, { signal }).then(granted),
      ])
      // An agent that is no longer there must not keep its last number.
      fleet.resetMetrics()
      gauges.halted.set(list.fence.halted ? 1 : 0)
      gauges.safeMode.set(list.fence.safe_mode ? 1 : 0)
      gauges.limit.set(list.limit)
      gauges.workers.set(list.workers.length)
      for (const { agent, running, waiting, awaiting_approval, breaker } of list.agents) {
        gauges.running.set({ agent }, running)
        gauges.waiting.set({ agent }, waiting)
        gauges.approval.set({ agent }, awaiting_approval)
        gauges.breaker.set({ agent }, breaker === 'closed' ? 0 : 1)
      }
      gauges.undelivered.set(Number(lag.waiting))
      gauges.dead.set(Number(lag.dead))
      gauges.lag.remove()
      if (lag.p95_ms !== null) gauges.lag.set(Number(lag.p95_ms) / 1000)
      return await fleet.metrics()
    } catch {
      return null
    }
  }

  return {
    answered(route, status, seconds) {
      requests.inc({ route, status })
      duration.observe({ route }, seconds)
    },
    refused: (reason) => refusals.inc({ reason }),
    working: (change) => inFlight.inc(change),
    async render() {
      const now = clock().getTime()
      if (reads && (last === null || now - last.at > freshMs)) last = { at: now, text: readFleet(reads) }
      const text = (await last?.text) ?? null
      readable.set(text === null ? 0 : 1)
      const own = await registry.metrics()
      const end = '# EOF\n'
      return {
        type: registry.contentType,
        text: text === null ? own : own.replace(end, '') + text,
      }
    },
  }
}
