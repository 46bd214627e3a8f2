import { setMaxListeners } from 'node:events'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { Flags } from '@oclif/core'
import type { Driver } from '../drivers/driver.ts'
import type { Logger } from '../redaction/logger.ts'
import type { RunningFleet } from '../runtime/fleet.ts'
import { TmsCommand } from './command.ts'

/** What commands that run agents take. */
export const fleetFlags = {
  agents: Flags.string({
    description: 'folder of agents (default: agents of the configuration)',
    helpValue: '<folder>',
  }),
  slots: Flags.integer({ description: 'handlers that one process runs at once', default: 20, min: 1, max: 150 }),
  grace: Flags.integer({ description: 'seconds for what runs when it ends', default: 10, min: 0, max: 600 }),
}

type FleetInput = { readonly agents: string | undefined; readonly slots: number; readonly json: boolean }

/** A command that is a process of the fleet: it works until it is stopped, and then ends what it has begun. */
export abstract class FleetCommand extends TmsCommand {
  /** Aborted when the work is over, and not by the signal: what runs then still ends in the database. */
  private readonly over = controller()

  protected override get signal(): AbortSignal {
    return this.over.signal
  }

  /** The log of the process: lines for people, or JSON; errors that agents let fall end up in it. */
  protected async openLog(json: boolean): Promise<Logger> {
    const [{ createLogger }, { logLine, logView }] = await Promise.all([
      import('../redaction/logger.ts'),
      import('../redaction/views.ts'),
    ])
    const log = createLogger({
      clock: () => new Date(),
      write: (entry) => (json ? this.line(logView, entry) : this.note(logLine(entry))),
    })
    this.takeStrays((error) => log.error('an agent let an error fall that nobody waits for', { error }))
    return log
  }

  protected async openFleet(
    driver: Driver,
    { agents, slots }: FleetInput,
    pollMs: number,
    log: Logger,
  ): Promise<RunningFleet> {
    const [{ openFleet }, { stopFileOf }, settings] = await Promise.all([
      import('../runtime/fleet.ts'),
      import('../config/folders.ts'),
      this.settings(),
    ])
    const { values } = settings
    const fleet = await openFleet({
      driver,
      folders: [agents === undefined ? values.agents : resolve(agents)],
      slots,
      name: `${hostname()}/${process.pid}`,
      host: hostname(),
      pid: process.pid,
      pollMs,
      version: this.config.version,
      otelEndpoint: values.otelEndpoint,
      secretsFolder: values.secretsFolder,
      filesFolder: join(values.artifacts, 'outbox'),
      environment: process.env,
      stopFile: stopFileOf(settings, process.env),
      log,
    })
    this.onCrash(async (error) => {
      log.error('an error that nobody caught ends this process; what it holds goes back', { error })
      await fleet.crash()
    })
    return fleet
  }

  /** Says that it works, shows how it goes, and on a signal ends the fleet and `others`, within the grace. */
  protected async workUntilStopped(
    fleet: RunningFleet,
    { target, door, graceMs }: { readonly target: string; readonly door: string | null; readonly graceMs: number },
    others: () => Promise<unknown>,
  ): Promise<void> {
    const [{ endedView, pulse, startedView }, { beyondGraceMs }] = await Promise.all([
      import('../runtime/views.ts'),
      import('../runtime/processes.ts'),
    ])
    const { worker, halted, slots } = fleet.stats()
    await this.line(startedView, { target, worker, agents: fleet.agents, slots, halted, door })
    const work = await this.progress(pulse(fleet.stats()))
    const live = setInterval(() => work.update(pulse(fleet.stats())), 1000)
    try {
      await this.untilSignal(graceMs + beyondGraceMs)
    } finally {
      clearInterval(live)
      work.done(pulse(fleet.stats()))
      await Promise.all([fleet.stop(graceMs), others()])
      this.over.abort()
    }
    await this.show(endedView, fleet.stats())
  }
}

/** Each handler that runs listens to the signal of its process: that is no leak. */
function controller(): AbortController {
  const made = new AbortController()
  setMaxListeners(1000, made.signal)
  return made
}
