import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class DbPush extends TmsCommand {
  static override summary = 'bring the schema and the flag catalogue of the database to this release'
  static override description =
    'All in one transaction; ten at once apply each file once. A database without schema tms needs consent that names it.'
  static override examples = [
    '<%= config.bin %> db push',
    '<%= config.bin %> db push --profile production --confirm db.example.com/tms',
  ]
  static override flags = { ...consentFlags }

  async run(): Promise<void> {
    await this.parse(DbPush)
    const [{ push, schemaPresent }, { pushView }, { bringCatalogue }, { loadPolicies }] = await Promise.all([
      import('../../db/schema.ts'),
      import('../../db/views.ts'),
      import('../../setup/catalogue.ts'),
      import('../../setup/policies.ts'),
    ])
    const db = await this.database({ anyContract: true })
    if (db.target.shared && !(await schemaPresent(db))) {
      await this.consent(db.target.consentName, `put schema tms into ${db.target.name}`)
    }
    const files = await this.sqlFiles()
    const report = await push(db, files)
    const catalogue = await bringCatalogue(db, await this.policyFolders())
    for (const problem of await loadPolicies(db, await this.policyFolders(), process.env)) this.warn(problem)
    return this.show(pushView, { target: db.target.name, ...report, catalogue })
  }
}
