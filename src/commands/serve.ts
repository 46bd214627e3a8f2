import { Flags } from '@oclif/core'
import { isAbsolute, join } from 'node:path'
import type { Connection, ServiceAccount } from '../drivers/connection.ts'
import type { Driver } from '../drivers/driver.ts'
import type { KeySource } from '../door/keys.ts'
import { TmsError } from '../errors.ts'
import { TmsCommand } from '../ui/command.ts'

/** How often the keys are read again: a rotation needs no restart. */
const keysEveryMs = 15_000

export default class Serve extends TmsCommand {
  static override summary = 'let other systems in over HTTP: signed requests for tasks, replays and webhooks'
  static override description =
    'Runs until Ctrl-C or SIGTERM. Works as service account n8n, and as dlq for replays. Secrets of keys come from TMS_DOOR_KEYS, --keys-file or --keys-command. It speaks plain HTTP: TLS is the work of the proxy before it. See docs/door.md.'
  static override examples = [
    '<%= config.bin %> serve --keys-file /etc/tms/door.keys',
    '<%= config.bin %> serve --host 0.0.0.0 --port 8080 --behind-proxy --trust-proxy 10.0.0.0/8 --keys-file door.keys',
  ]
  static override flags = {
    host: Flags.string({ description: 'address to listen on', default: '127.0.0.1' }),
    port: Flags.integer({ description: 'port to listen on; 0 takes a free one', default: 8480, min: 0, max: 65535 }),
    'behind-proxy': Flags.boolean({
      description: 'a proxy that speaks TLS stands before it: needed for any address but loopback',
    }),
    'trust-proxy': Flags.string({
      description: 'addresses or networks whose X-Forwarded-For is believed',
      helpValue: '<cidr>',
      multiple: true,
      delimiter: ',',
    }),
    'keys-file': Flags.string({ description: 'file with the secrets of keys, mode 600', helpValue: '<file>' }),
    'keys-command': Flags.string({ description: 'command that prints the secrets of keys', helpValue: '<command>' }),
    webhooks: Flags.string({
      description: 'file that says what each webhook becomes (default: webhooks.yaml of the policies, if there)',
      helpValue: '<file>',
    }),
    'replay-profile': Flags.string({
      description: 'profile that connects as account dlq; without one there is no replay (embedded: always)',
      helpValue: '<name>',
    }),
    'metrics-profile': Flags.string({
      description: "profile that may read the fleet, for the fleet's metrics (embedded: always)",
      helpValue: '<name>',
    }),
  }

  /** Aborted when the door is closed, and not by the signal: what is in flight then still gets its answer. */
  private readonly closed = new AbortController()

  protected override get signal(): AbortSignal {
    return this.closed.signal
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(Serve)
    const [
      { openDoor },
      { checkAccount },
      { parseProxies, isLoopbackHost },
      { readKeys },
      { createLogger },
      { redactError },
      { logLine, logView },
      views,
    ] = await Promise.all([
      import('../door/server.ts'),
      import('../door/admit.ts'),
      import('../door/address.ts'),
      import('../door/keys.ts'),
      import('../redaction/logger.ts'),
      import('../redaction/redact.ts'),
      import('../redaction/views.ts'),
      import('../door/views.ts'),
    ])
    if (!isLoopbackHost(flags.host) && !flags['behind-proxy']) {
      throw this.usage(
        `--host ${flags.host} is open to others, and this speaks plain HTTP`,
        'requests would be readable on the way; say --behind-proxy when a proxy with TLS stands before it',
      )
    }
    const trustProxy = parseProxies(flags['trust-proxy'] ?? [])
    const source = this.keySource(flags['keys-file'], flags['keys-command'])
    let keys = await readKeys(source)
    const sources = await this.sources(flags.webhooks)

    const { connection } = await this.settings()
    const driver = await this.openAs(connection, 'n8n')
    const replay = await this.second(connection, 'dlq', flags['replay-profile'])
    const reads = await this.second(connection, 'autopilot', flags['metrics-profile'])
    const { checkContract } = await import('../db/schema.ts')
    const differs = await checkContract(driver)
    if (differs !== null) this.warn(differs)
    await checkAccount(driver, ['webhook.in', 'task.enqueue'], 'n8n')
    if (replay) await checkAccount(replay, ['dlq.dry_run', 'dlq.replay'], 'dlq')

    const logger = createLogger({
      clock: () => new Date(),
      write: (entry) => (flags.json ? this.line(logView, entry) : this.note(logLine(entry))),
    })
    const metricsToken = process.env['TMS_DOOR_METRICS_TOKEN']
    const door = await openDoor({
      host: flags.host,
      port: flags.port,
      driver,
      replay,
      reads,
      keys: () => keys,
      sources,
      logger,
      clock: () => new Date(),
      trustProxy,
      metricsToken: metricsToken === '' ? undefined : metricsToken,
    })
    const again = setInterval(() => {
      readKeys(source).then(
        (ring) => (keys = ring),
        // The keys that worked go on: half a file is no reason to shut everybody out.
        (error: unknown) =>
          logger.error('the keys could not be read again; the old ones go on', { error: redactError(error) }),
      )
    }, keysEveryMs)
    // In flight goes on until its answer is sent; only then are the database calls called off.
    super.signal.addEventListener('abort', () => void door.close().finally(() => this.closed.abort()))
    try {
      await this.line(views.servedView, {
        url: door.url,
        target: driver.target.name,
        keys: keys.size,
        sources: sources.size,
        replay: replay !== undefined,
        metrics: metricsToken ? 'with a token' : 'from this host',
      })
      await this.untilSignal()
    } finally {
      clearInterval(again)
      await door.close()
    }
  }

  private keySource(file: string | undefined, command: string | undefined): KeySource {
    const text = process.env['TMS_DOOR_KEYS'] ?? ''
    const given: KeySource[] = [
      ...(text === '' ? [] : [{ kind: 'variable', name: 'TMS_DOOR_KEYS', text } as const]),
      ...(file === undefined ? [] : [{ kind: 'file', path: file } as const]),
      ...(command === undefined ? [] : [{ kind: 'command', command } as const]),
    ]
    const [only, ...more] = given
    if (only && more.length === 0) return only
    throw new TmsError({
      code: only ? 'USAGE' : 'CONFIG_MISSING',
      what: only
        ? 'the secrets of the keys come from more than one place'
        : 'nothing says where the secrets of the keys are',
      why: 'it takes one of TMS_DOOR_KEYS, --keys-file and --keys-command',
      next: ['tms accounts rotate n8n --kind key', 'tms serve --keys-file <file>'],
    })
  }

  private async sources(file: string | undefined) {
    const { readSources } = await import('../door/sources.ts')
    if (file !== undefined) return readSources(isAbsolute(file) ? file : join(process.cwd(), file))
    const { existsSync } = await import('node:fs')
    const found = (await this.policyFolders()).map((folder) => join(folder, 'webhooks.yaml')).find(existsSync)
    return found === undefined ? new Map<string, never>() : readSources(found)
  }

  /** The embedded database knows the local user, who may do more than a machine should: so it is told which account. */
  private async openAs(connection: Connection, account: ServiceAccount): Promise<Driver> {
    const { callingAs } = await import('../config/connections.ts')
    return this.openDatabase(callingAs(connection, account) ?? connection)
  }

  private async second(
    connection: Connection,
    account: ServiceAccount,
    profile: string | undefined,
  ): Promise<Driver | undefined> {
    if (profile === undefined) {
      const { callingAs } = await import('../config/connections.ts')
      const there = callingAs(connection, account)
      return there && this.openDatabase(there)
    }
    const { resolveSettings } = await import('../config/resolve.ts')
    const { file } = await this.settings()
    const settings = await resolveSettings({
      folder: process.cwd(),
      // The variables name the first database; a profile must not be overruled by them.
      environment: {},
      flags: { profile, config: file ?? undefined },
    })
    return this.openAs(settings.connection, account)
  }
}
