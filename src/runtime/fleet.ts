import type { Agent } from '../agents/define.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { startDelivery } from '../outbox/deliver.ts'
import type { Secrets } from '../outbox/targets/target.ts'
import type { Logger } from '../redaction/logger.ts'
import { redact } from '../redaction/redact.ts'
import { startTracing } from '../tracing/tracer.ts'
import { startWorker, type Stats } from './worker.ts'

export type FleetOptions = {
  /** As the service account that works. */
  readonly driver: Driver
  readonly agents: readonly Agent[]
  readonly slots: number
  readonly name: string
  readonly host: string
  readonly pid: number
  readonly pollMs: number
  readonly version: string
  readonly otel: { readonly endpoint: string | null; readonly headers: Readonly<Record<string, string>> }
  readonly outbox: {
    readonly secrets: Secrets
    readonly folder: string
    readonly lookup: (hostname: string) => Promise<readonly string[]>
    readonly random: (bytes: number) => Uint8Array
  }
  readonly log: Logger
  readonly fetch: typeof fetch
  readonly clock: () => Date
  readonly now: () => number
  readonly stoppedHere?: ((resumedAgoMs: number | null) => Promise<boolean>) | undefined
}

export type FleetStats = Stats & { readonly delivered: number; readonly undelivered: number; readonly spans: number }

export type RunningFleet = {
  readonly agents: readonly string[]
  stats(): FleetStats
  stop(graceMs: number): Promise<void>
  /** Hands back what it holds, at once: an error that nobody caught ends its process. */
  crash(): Promise<void>
}

const upkeepMs = 20_000

/** A worker, the delivery of the outbox and the housekeeping: what one process of the fleet does. */
export async function startFleet(options: FleetOptions): Promise<RunningFleet> {
  const { driver, log } = options
  const tracing = await tracingSettings(driver, log)
  const tracer = await startTracing({
    enabled: tracing.enabled,
    samplePercent: tracing.percent,
    endpoint: options.otel.endpoint,
    headers: options.otel.headers,
    serviceName: 'tms',
    serviceVersion: options.version,
    environment: tracing.environment,
    redact,
    fetchTimeoutMs: 5000,
  })
  const worker = await startWorker({
    driver,
    agents: options.agents,
    name: options.name,
    host: options.host,
    pid: options.pid,
    slots: options.slots,
    tracer,
    log,
    fetch: options.fetch,
    now: options.now,
    pollMs: options.pollMs,
    stoppedHere: options.stoppedHere,
  })
  const delivery = await startDelivery({
    driver,
    log,
    pollMs: options.pollMs,
    fetch: options.fetch,
    clock: options.clock,
    timeoutMs: 15_000,
    ...options.outbox,
  })
  let keeping: Promise<void> | null = null
  const keep = () => {
    keeping ??= upkeep(driver, log).finally(() => (keeping = null))
  }
  const timer = setInterval(keep, upkeepMs)
  const resample = setInterval(
    () => void tracingSettings(driver, log).then(({ percent }) => tracer.setSampling(percent)),
    60_000,
  )

  return {
    agents: options.agents.map(({ name }) => name),
    stats: () => ({
      ...worker.stats(),
      delivered: delivery.stats().delivered,
      undelivered: delivery.stats().failed,
      spans: tracer.exported().spans,
    }),
    stop: (graceMs) => stop(() => worker.stop(graceMs)),
    crash: () => stop(() => worker.crash()),
  }

  async function stop(work: () => Promise<void>): Promise<void> {
    clearInterval(timer)
    clearInterval(resample)
    await Promise.all([work(), delivery.stop()])
    await keeping
    await tracer.stop()
  }
}

async function upkeep(driver: Driver, log: Logger): Promise<void> {
  try {
    for (let more = true, steps = 0; more && steps < 20; steps++) {
      const said = granted(await driver.call('upkeep', {}))
      more = said.more
      if (typeof said.failed === 'string') {
        log.warn('housekeeping could not make or drop monthly partitions; it is tried again', { error: said.failed })
      }
    }
  } catch (error) {
    log.warn('housekeeping failed; it is tried again', {
      error: error instanceof Error ? error.message : String(error),
    })
  }
}

/** Whether spans are recorded, and of how many traces. What can't be read is off: spans are no reason not to work. */
async function tracingSettings(
  driver: Driver,
  log: Logger,
): Promise<{ readonly enabled: boolean; readonly percent: number; readonly environment: string }> {
  try {
    const { enabled, percent, environment } = granted(await driver.call('worker_settings', {}))
    return { enabled, percent: Number(percent), environment: environment ?? 'unknown' }
  } catch (error) {
    log.warn('the tracing flags cannot be read', { error: error instanceof Error ? error.message : String(error) })
    return { enabled: false, percent: 0, environment: 'unknown' }
  }
}

export type FleetHere = {
  readonly driver: Driver
  readonly folders: readonly string[]
  readonly slots: number
  readonly name: string
  readonly host: string
  readonly pid: number
  readonly pollMs: number
  readonly version: string
  readonly otelEndpoint: string | undefined
  readonly secretsFolder: string | undefined
  /** Where outbox targets of kind file write. */
  readonly filesFolder: string
  readonly environment: Readonly<Record<string, string | undefined>>
  /** The file that stops this host's workers while the database is down; absent: there is none. */
  readonly stopFile?: string | undefined
  readonly log: Logger
}

/** The fleet of this process, with the world as it is: network, clock, files. */
export async function openFleet(here: FleetHere): Promise<RunningFleet> {
  const [{ loadAgents }, { hostSecrets }, { lookup }, { randomBytes }, { mkdir }, { watchStopFile }] =
    await Promise.all([
      import('../agents/load.ts'),
      import('../outbox/targets/secrets.ts'),
      import('../outbox/targets/address.ts'),
      import('node:crypto'),
      import('node:fs/promises'),
      import('../incident/stop-file.ts'),
    ])
  await mkdir(here.filesFolder, { recursive: true })
  return startFleet({
    driver: here.driver,
    agents: await loadAgents(here.folders),
    slots: here.slots,
    name: here.name,
    host: here.host,
    pid: here.pid,
    pollMs: here.pollMs,
    version: here.version,
    otel: { endpoint: here.otelEndpoint ?? null, headers: {} },
    outbox: {
      secrets: hostSecrets(here.environment, here.secretsFolder ?? null),
      folder: here.filesFolder,
      lookup,
      random: randomBytes,
    },
    log: here.log,
    fetch: globalThis.fetch,
    clock: () => new Date(),
    now: () => performance.now(),
    stoppedHere: here.stopFile === undefined ? undefined : watchStopFile(here.stopFile),
  })
}
