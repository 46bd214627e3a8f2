import { resolve } from 'node:path'
import { Flags } from '@oclif/core'
import type { environments as known } from '../drivers/contract.ts'
import { consentFlags, questionFlags, TmsCommand } from '../ui/command.ts'

type Environment = (typeof known)[number]

const environments = [
  { name: 'development: try things out', value: 'development' },
  { name: 'staging: like production, without its customers', value: 'staging' },
  { name: 'production', value: 'production' },
] as const

export default class Init extends TmsCommand {
  static override summary = 'make a database ready: schema, signing key, operator, flags, configuration'
  static override description =
    'Asks on a terminal; elsewhere, or with --yes, it takes the defaults. Safe to run again. Putting the schema into a database that others may share needs consent that names it.'
  static override examples = [
    '<%= config.bin %> init',
    '<%= config.bin %> init --yes --environment development',
    '<%= config.bin %> init --driver postgres --environment production --confirm db.example.com/tms',
  ]
  static override flags = {
    ...consentFlags,
    ...questionFlags,
    environment: Flags.option({ options: ['production', 'staging', 'development'] as const })({
      description: 'what this database is; set once (default: development for the embedded database, else production)',
    }),
    keys: Flags.string({
      description: "folder of the signing key, kept in the configuration (default: the user's own)",
      helpValue: '<folder>',
    }),
    operator: Flags.string({ description: 'name of the first operator, where the database does not know you yet' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(Init)
    const settings = await this.settings({ create: true })
    const [
      { environmentOf, initialise },
      { initView },
      { schemaPresent },
      { readCatalogue },
      { ensureConfig },
      { localUser, placeOf },
      { signerSources },
      { loadPolicies },
      { forgetToken, overrideTokenPath },
    ] = await Promise.all([
      import('../setup/init.ts'),
      import('../setup/views.ts'),
      import('../db/schema.ts'),
      import('../flags/catalogue.ts'),
      import('../config/write.ts'),
      import('../config/folders.ts'),
      import('../config/signing.ts'),
      import('../setup/policies.ts'),
      import('../setup/override-token.ts'),
    ])
    const db = await this.database({ anyContract: true })
    const defaultEnvironment = db.target.shared ? 'production' : 'development'
    const fresh = !(await schemaPresent(db))
    const environment =
      flags.environment ??
      (fresh || (await environmentOf(db)) === null
        ? await this.choose<Environment>({
            flag: '--environment',
            message: 'What is this database?',
            choices: environments,
            default: defaultEnvironment,
          })
        : null)
    const operator =
      flags.operator ??
      (await this.ask({ flag: '--operator', message: 'Name of the first operator?', default: localUser() }))
    const catalogue = await readCatalogue(await this.policyFolders())

    if (db.target.shared && fresh) {
      await this.consent(
        db.target.consentName,
        `put schema tms into ${db.target.name} as ${environment ?? defaultEnvironment}`,
      )
    }
    const signing = signerSources(settings, process.env, flags.keys === undefined ? undefined : resolve(flags.keys))
    const tokenFile = overrideTokenPath(signing.keysFolder, placeOf(settings.connection))
    const work = await this.progress('Preparing the database')
    const done = await initialise(db, {
      files: await this.sqlFiles(),
      catalogue,
      environment,
      defaultEnvironment,
      operator,
      signing,
      tokenFile,
    })
    const { tokenFile: waits, ...shown } = done
    if (waits !== null) {
      this.keptUntilShown(
        () => forgetToken(waits),
        `The override token waits in ${waits}. Within a day, tms init shows it.`,
      )
    }
    for (const problem of await loadPolicies(db, await this.policyFolders(), process.env)) this.warn(problem)
    work.done()
    const { path, written } = await ensureConfig(settings, process.cwd(), flags.keys)
    return this.show(initView, { ...shown, configFile: path, configWritten: written })
  }
}
