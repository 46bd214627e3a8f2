import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Driver } from '../drivers/driver.ts'
import type { Logger } from '../redaction/logger.ts'
import { readKeys } from './keys.ts'
import { openDoor, type Door } from './server.ts'
import { readSources } from './sources.ts'

/** The door on this host alone, with its keys from the environment: part of `tms up`. */
export async function openLocalDoor(options: {
  readonly port: number
  readonly keys: string
  readonly driver: Driver
  readonly replay: Driver
  readonly reads: Driver
  readonly policyFolders: readonly string[]
  readonly metricsToken: string | undefined
  readonly logger: Logger
}): Promise<Door> {
  const { port, driver, replay, reads, logger, metricsToken } = options
  const keys = await readKeys({ kind: 'variable', name: 'TMS_DOOR_KEYS', text: options.keys })
  const file = options.policyFolders.map((folder) => join(folder, 'webhooks.yaml')).find(existsSync)
  return openDoor({
    host: '127.0.0.1',
    port,
    driver,
    replay,
    reads,
    keys: () => keys,
    sources: file === undefined ? new Map() : await readSources(file),
    logger,
    clock: () => new Date(),
    trustProxy: [],
    metricsToken: metricsToken === '' ? undefined : metricsToken,
  })
}
