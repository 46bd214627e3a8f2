import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

/** Set for the processes of --workers: they end with the one that started them, also when that was killed. */
const childOf = 'TMS_STARTED_BY'

export default class AgentsStart extends TmsCommand {
  static override summary = 'work: claim tasks, run agents, deliver the outbox'
  static override description =
    "Runs until Ctrl-C or SIGTERM; then hands back what hasn't ended. Any number of processes on any number of hosts may work on one Postgres. On the embedded database it acts as the service account agents."
  static override examples = ['<%= config.bin %> agents start', '<%= config.bin %> agents start --workers 2 --slots 20']
  static override flags = {
    agents: Flags.string({
      description: 'folder of agents (default: agents of the configuration)',
      helpValue: '<folder>',
    }),
    workers: Flags.integer({
      description: 'processes; each runs as many handlers as it has slots',
      default: 1,
      min: 1,
      max: 32,
    }),
    slots: Flags.integer({ description: 'handlers that one process runs at once', default: 20, min: 1, max: 150 }),
    grace: Flags.integer({ description: 'seconds for what runs when it ends', default: 10, min: 0, max: 600 }),
  }

  /** Aborted when the work is over, and not by the signal: what runs then still ends in the database. */
  private readonly over = new AbortController()

  protected override get signal(): AbortSignal {
    return this.over.signal
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(AgentsStart)
    if (process.env[childOf] === String(process.ppid)) {
      process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'))
    }
    const [
      { openFleet },
      { startProcesses, withoutOption },
      { createLogger },
      views,
      { checkContract },
      { logLine, logView },
      { placeOf, stopFolder },
      { stopFilePath },
    ] = await Promise.all([
      import('../../runtime/fleet.ts'),
      import('../../runtime/processes.ts'),
      import('../../redaction/logger.ts'),
      import('../../runtime/views.ts'),
      import('../../db/schema.ts'),
      import('../../redaction/views.ts'),
      import('../../config/folders.ts'),
      import('../../incident/stop-file.ts'),
    ])
    const settings = await this.settings()
    const { connection, values } = settings
    const driver = await this.openDatabase(
      connection.driver === 'embedded' ? { ...connection, account: 'agents' } : connection,
    )
    const differs = await checkContract(driver)
    if (differs !== null) this.warn(differs)
    const log = createLogger({
      clock: () => new Date(),
      write: (entry) => (flags.json ? this.line(logView, entry) : this.note(logLine(entry))),
    })
    this.takeStrays((error) => log.error('an agent let an error fall that nobody waits for', { error }))
    const fleet = await openFleet({
      driver,
      folders: [flags.agents === undefined ? values.agents : resolve(flags.agents)],
      slots: flags.slots,
      name: `${hostname()}/${process.pid}`,
      host: hostname(),
      pid: process.pid,
      pollMs: Math.min(values.pollMs, 1000),
      version: this.config.version,
      otelEndpoint: values.otelEndpoint,
      secretsFolder: values.secretsFolder,
      filesFolder: join(values.artifacts, 'outbox'),
      environment: process.env,
      stopFile: stopFilePath(stopFolder(settings, process.env), placeOf(connection)),
      log,
    })
    const others = startProcesses({
      count: flags.workers - 1,
      program: process.execPath,
      argv: [...withoutOption(process.argv.slice(1), '--workers'), '--workers', '1'],
      environment: { ...process.env, [childOf]: String(process.pid) },
      log,
    })
    const { worker, halted, slots } = fleet.stats()
    await this.line(views.startedView, {
      target: driver.target.name,
      worker,
      agents: fleet.agents,
      slots,
      halted,
      door: null,
    })
    const work = await this.progress(views.pulse(fleet.stats()))
    const live = setInterval(() => work.update(views.pulse(fleet.stats())), 1000)
    try {
      await this.untilSignal(flags.grace * 1000 + 6000)
    } finally {
      clearInterval(live)
      work.done(views.pulse(fleet.stats()))
      await Promise.all([fleet.stop(flags.grace * 1000), others.stop(flags.grace * 1000)])
      this.over.abort()
    }
    await this.show(views.endedView, fleet.stats())
  }
}
