import { Flags } from '@oclif/core'
import { FleetCommand, fleetFlags } from '../../ui/fleet-command.ts'

/** Set for the processes of --workers: they end with the one that started them, also when that was killed. */
const childOf = 'TMS_STARTED_BY'

export default class AgentsStart extends FleetCommand {
  static override summary = 'work: claim tasks, run agents, deliver the outbox'
  static override description =
    "Runs until Ctrl-C or SIGTERM; then hands back what hasn't ended. Any number of processes on any number of hosts may work on one Postgres. On the embedded database it acts as the service account agents."
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
    const [{ startProcesses, withoutOption }, { checkContract }, { callingAs }] = await Promise.all([
      import('../../runtime/processes.ts'),
      import('../../db/schema.ts'),
      import('../../config/connections.ts'),
    ])
    const { connection, values } = await this.settings()
    const driver = await this.openDatabase(callingAs(connection, 'agents') ?? connection)
    const differs = await checkContract(driver)
    if (differs !== null) this.warn(differs)
    const log = await this.openLog(flags.json)
    const fleet = await this.openFleet(driver, flags, Math.min(values.pollMs, 1000), log)
    const others = startProcesses({
      count: flags.workers - 1,
      program: process.execPath,
      argv: [...withoutOption(process.argv.slice(1), '--workers'), '--workers', '1'],
      environment: { ...process.env, [childOf]: String(process.pid) },
      log,
    })
    const graceMs = flags.grace * 1000
    return this.workUntilStopped(fleet, { target: driver.target.name, door: null, graceMs }, () => others.stop(graceMs))
  }
}
