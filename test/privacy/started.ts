import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Agent } from '../../src/agents/define.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import type { Secrets } from '../../src/outbox/targets/target.ts'
import { createLogger, type LogEntry } from '../../src/redaction/logger.ts'
import { startFleet, type RunningFleet } from '../../src/runtime/fleet.ts'

/** What a process of the fleet runs, in this process, with everything it says at hand. */
export type Started = RunningFleet & {
  /** Its lines of log, as they would go to stderr. */
  readonly said: LogEntry[]
  /** Where outbox targets of kind file write. */
  readonly folder: string
}

export async function started(
  driver: Driver,
  agents: readonly Agent[],
  { collector = null, secrets }: { readonly collector?: string | null; readonly secrets?: Secrets } = {},
): Promise<Started> {
  const said: LogEntry[] = []
  const folder = await mkdtemp(join(tmpdir(), 'tms-started-'))
  const fleet = await startFleet({
    driver,
    agents,
    slots: 20,
    name: 'w',
    host: 'test',
    pid: process.pid,
    pollMs: 50,
    version: '1.2.3',
    otel: { endpoint: collector, headers: {} },
    outbox: {
      secrets: secrets ?? (() => Promise.reject(new Error('this host has no secrets'))),
      folder,
      lookup: async () => ['127.0.0.1'],
      random: (bytes) => crypto.getRandomValues(new Uint8Array(bytes)),
    },
    log: createLogger({ write: (entry) => said.push(entry), clock: () => new Date(), level: 'debug' }),
    fetch,
    clock: () => new Date(),
    now: () => performance.now(),
  })
  return {
    ...fleet,
    said,
    folder,
    async stop(graceMs) {
      await fleet.stop(graceMs)
      await rm(folder, { recursive: true, force: true })
    },
  }
}
