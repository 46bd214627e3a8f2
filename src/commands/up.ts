import { Flags } from '@oclif/core'
import type { ServiceAccount } from '../drivers/connection.ts'
import type { Driver } from '../drivers/driver.ts'
import type { Logger } from '../redaction/logger.ts'
import type { Duties } from '../runtime/duties.ts'
import { FleetCommand, fleetFlags } from '../ui/fleet-command.ts'

export default class Up extends FleetCommand {
  static override summary =
    'the whole of it in one process: the embedded database, workers, outbox, door and housekeeping'
  static override description =
    'Runs until Ctrl-C or SIGTERM. Loads policies and outbox targets first. Other commands go through its socket and start faster. The door opens when TMS_DOOR_KEYS has keys. Housekeeping seals the ledger, probes, judges the posture and draws its consequences, scans invariants and looks after incidents. With Postgres or Supabase it does the housekeeping alone, as autopilot or super_admin: workers and door are tms agents start and tms serve.'
  static override examples = ['<%= config.bin %> up', '<%= config.bin %> up --no-work --json']
  static override flags = {
    work: Flags.boolean({
      description: 'do all of that; --no-work only keeps the embedded database open',
      default: true,
      allowNo: true,
    }),
    ...fleetFlags,
    port: Flags.integer({ description: 'port of the door; 0 takes a free one', default: 8480, min: 0, max: 65535 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(Up)
    const [{ callingAs }, { hold }, { loadPolicies }, { upView }] = await Promise.all([
      import('../config/connections.ts'),
      import('../setup/up.ts'),
      import('../setup/policies.ts'),
      import('../setup/views.ts'),
    ])
    const { connection } = await this.settings()
    const held = await hold(await this.database())
    await this.line(upView, { ...held, works: flags.work })
    if (!flags.work) return held.held ? this.untilSignal() : undefined

    const log = await this.openLog(flags.json)
    if (!callingAs(connection, 'agents')) {
      const duties = await this.keepHouse(await this.database(), log)
      try {
        return await this.untilSignal()
      } finally {
        await duties.stop()
      }
    }
    for (const problem of await loadPolicies(await this.database(), await this.policyFolders(), process.env))
      this.warn(problem)
    const as = (account: ServiceAccount) => this.openDatabase(callingAs(connection, account) ?? connection)
    // The workers last: what they claim must not be left to its leases because the rest could not begin.
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
    const duties = await this.keepHouse(await as('autopilot'), log)
    const fleet = await this.openFleet(await as('agents'), flags, 500, log)
    return this.workUntilStopped(
      fleet,
      {
        target: held.target,
        door: door === null ? 'shut: TMS_DOOR_KEYS has no keys' : door.url,
        graceMs: flags.grace * 1000,
      },
      async () => Promise.all([door?.close(), duties.stop()]),
    )
  }

  /** What the product does by itself: sealing, probing, judging, scanning, looking after incidents. */
  private async keepHouse(driver: Driver, log: Logger): Promise<Duties> {
    const [{ startDuties }, { housekeeping }, { values }] = await Promise.all([
      import('../runtime/duties.ts'),
      import('../runtime/housekeeping.ts'),
      this.settings(),
    ])
    const duties = housekeeping({
      driver,
      policyFolders: await this.policyFolders(),
      sqlFiles: await this.sqlFiles(),
      reach: { doorUrl: values.doorUrl, fetch, now: () => performance.now() },
    })
    return startDuties(duties, log)
  }
}
