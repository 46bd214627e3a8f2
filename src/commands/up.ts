import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { Flags } from '@oclif/core'
import type { ServiceAccount } from '../drivers/connection.ts'
import { TmsCommand } from '../ui/command.ts'

export default class Up extends TmsCommand {
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
    agents: Flags.string({
      description: 'folder of agents (default: agents of the configuration)',
      helpValue: '<folder>',
    }),
    slots: Flags.integer({ description: 'handlers that run at once', default: 20, min: 1, max: 150 }),
    port: Flags.integer({ description: 'port of the door; 0 takes a free one', default: 8480, min: 0, max: 65535 }),
    grace: Flags.integer({ description: 'seconds for what runs when it ends', default: 10, min: 0, max: 600 }),
  }

  /** Aborted when all is over, and not by the signal: what runs then still ends in the database. */
  private readonly over = new AbortController()

  protected override get signal(): AbortSignal {
    return this.over.signal
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(Up)
    const [{ hold }, { loadPolicies }, views, { createLogger }, working, { logLine, logView }] = await Promise.all([
      import('../setup/up.ts'),
      import('../setup/policies.ts'),
      import('../setup/views.ts'),
      import('../redaction/logger.ts'),
      import('../runtime/views.ts'),
      import('../redaction/views.ts'),
    ])
    const { connection, values } = await this.settings()
    const held = await hold(await this.database())
    await this.line(views.upView, held)
    if (!held.held) return
    const log = createLogger({
      clock: () => new Date(),
      write: (entry) => (flags.json ? this.line(logView, entry) : this.note(logLine(entry))),
    })
    if (connection.driver !== 'embedded' || !flags.work) return this.untilSignal()

    this.takeStrays((error) => log.error('an agent let an error fall that nobody waits for', { error }))
    for (const problem of await loadPolicies(await this.database(), await this.policyFolders())) this.warn(problem)
    const as = (account: ServiceAccount) => this.openDatabase({ ...connection, account })
    const { openFleet } = await import('../runtime/fleet.ts')
    const fleet = await openFleet({
      driver: await as('agents'),
      folders: [flags.agents === undefined ? values.agents : resolve(flags.agents)],
      slots: flags.slots,
      name: `${hostname()}/${process.pid}`,
      host: hostname(),
      pid: process.pid,
      pollMs: 500,
      version: this.config.version,
      otelEndpoint: values.otelEndpoint,
      secretsFolder: values.secretsFolder,
      filesFolder: join(values.artifacts, 'outbox'),
      environment: process.env,
      log,
    })
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
    const { worker, halted, slots } = fleet.stats()
    await this.line(working.startedView, {
      target: held.target,
      worker,
      agents: fleet.agents,
      slots,
      halted,
      door: door === null ? 'shut: TMS_DOOR_KEYS has no keys' : door.url,
    })
    const work = await this.progress(working.pulse(fleet.stats()))
    const live = setInterval(() => work.update(working.pulse(fleet.stats())), 1000)
    try {
      await this.untilSignal(flags.grace * 1000 + 6000)
    } finally {
      clearInterval(live)
      work.done(working.pulse(fleet.stats()))
      await door?.close()
      await fleet.stop(flags.grace * 1000)
      this.over.abort()
    }
    await this.show(working.endedView, fleet.stats())
  }
}
