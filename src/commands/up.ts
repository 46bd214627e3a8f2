import { Flags } from '@oclif/core'
import type { ServiceAccount } from '../drivers/connection.ts'
import { FleetCommand, fleetFlags } from '../ui/fleet-command.ts'

export default class Up extends FleetCommand {
  static override summary = 'the whole of it in one process: the embedded database, workers, outbox and door'
  static override description =
    'Runs until Ctrl-C or SIGTERM. Loads policies and outbox targets first. Other commands go through its socket and start faster. The door opens when TMS_DOOR_KEYS has keys. With Postgres or Supabase each part is a command of its own: tms agents start, tms serve.'
  static override examples = ['<%= config.bin %> up', '<%= config.bin %> up --no-work --json']
  static override flags = {
    work: Flags.boolean({
      description: 'run agents and deliver the outbox',
      default: true,
      allowNo: true,
    }),
    ...fleetFlags,
    port: Flags.integer({ description: 'port of the door; 0 takes a free one', default: 8480, min: 0, max: 65535 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(Up)
    const [{ hold }, { loadPolicies }, { upView }] = await Promise.all([
      import('../setup/up.ts'),
      import('../setup/policies.ts'),
      import('../setup/views.ts'),
    ])
    const { connection } = await this.settings()
    const held = await hold(await this.database())
    await this.line(upView, held)
    if (!held.held) return
    if (connection.driver !== 'embedded' || !flags.work) return this.untilSignal()

    const log = await this.openLog(flags.json)
    for (const problem of await loadPolicies(await this.database(), await this.policyFolders())) this.warn(problem)
    const as = (account: ServiceAccount) => this.openDatabase({ ...connection, account })
    const fleet = await this.openFleet(await as('agents'), flags, 500, log)
    const keys = process.env['TMS_DOOR_KEYS'] ?? ''
    const { openLocalDoor } = await import('../door/local.ts')
    const door =
      keys === ''
        ? null
        : await openLocalDoor({
            port: flags.port,
            keys,
            driver: await as('n8n'),
            replay: await as('dlq'),
            reads: await as('autopilot'),
            policyFolders: await this.policyFolders(),
            metricsToken: process.env['TMS_DOOR_METRICS_TOKEN'],
            logger: log,
          })
    return this.workUntilStopped(
      fleet,
      {
        target: held.target,
        door: door === null ? 'shut: TMS_DOOR_KEYS has no keys' : door.url,
        graceMs: flags.grace * 1000,
      },
      async () => door?.close(),
    )
  }
}
