import { Flags } from '@oclif/core'
import type { Logger } from '../../redaction/logger.ts'
import { FleetCommand, fleetFlags } from '../../ui/fleet-command.ts'

/** Set for the processes of --workers: they end with the one that started them, also when that was killed. */
const childOf = 'TMS_STARTED_BY'

export default class AgentsStart extends FleetCommand {
  static override summary = 'work: claim tasks, run agents, deliver the outbox'
  static override description =
    "Runs until Ctrl-C or SIGTERM; then hands back what hasn't ended. Any number of processes on any number of hosts may work on one Postgres. With --workers of 2 or more this process only looks after the others: one that crashes hands back its tasks, is started again, and makes the exit code 70 in the end. On the embedded database it acts as the service account agents."
  static override examples = ['<%= config.bin %> agents start', '<%= config.bin %> agents start --workers 2 --slots 20']
  static override flags = {
    ...fleetFlags,
    workers: Flags.integer({
      description: 'processes; each runs as many handlers as it has slots',
      default: 1,
      min: 1,
      max: 32,
    }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(AgentsStart)
    if (process.env[childOf] === String(process.ppid)) {
      process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'))
    }
    const [{ checkContract }, { callingAs }] = await Promise.all([
      import('../../db/schema.ts'),
      import('../../config/connections.ts'),
    ])
    const { connection, values } = await this.settings()
    const driver = await this.openDatabase(callingAs(connection, 'agents') ?? connection)
    const differs = await checkContract(driver)
    if (differs !== null) this.warn(differs)
    const log = await this.openLog(flags.json)
    const graceMs = flags.grace * 1000
    if (flags.workers > 1) return this.superviseUntilStopped(driver.target.name, { ...flags, graceMs }, log)
    const fleet = await this.openFleet(driver, flags, Math.min(values.pollMs, 1000), log)
    return this.workUntilStopped(fleet, { target: driver.target.name, door: null, graceMs }, () => Promise.resolve())
  }

  /** Runs no agent itself: what ends one of the processes ends no other. */
  private async superviseUntilStopped(
    target: string,
    { workers, slots, graceMs }: { readonly workers: number; readonly slots: number; readonly graceMs: number },
    log: Logger,
  ): Promise<void> {
    const [{ beyondGraceMs, crashedOnTheWay, startProcesses, withoutOption }, { supervisedView, supervisingView }] =
      await Promise.all([import('../../runtime/processes.ts'), import('../../runtime/views.ts')])
    await this.line(supervisingView, { target, processes: workers, slots })
    const processes = startProcesses({
      count: workers,
      program: process.execPath,
      argv: [...withoutOption(process.argv.slice(1), '--workers'), '--workers', '1'],
      environment: { ...process.env, [childOf]: String(process.pid) },
      // to people each says it on standard error itself
      onEntry: (entry) => void this.line(() => [], entry),
      log,
    })
    try {
      // After those that it looks after.
      await Promise.race([this.untilSignal(graceMs + beyondGraceMs + 3000), processes.hopeless])
    } finally {
      await processes.stop(graceMs)
    }
    const crashes = processes.crashes()
    if (crashes > 0) this.outweighSignal(crashedOnTheWay(crashes))
    await this.show(supervisedView, { processes: workers, crashes })
  }
}
