import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class DbReset extends TmsCommand {
  static override summary = 'remove everything tms stored in the database and lay the schema anew'
  static override description = 'Needs consent that names the database. Refused where the environment is production.'
  static override examples = ['<%= config.bin %> db reset', '<%= config.bin %> db reset --confirm localhost/tms']
  static override flags = { ...consentFlags }

  async run(): Promise<void> {
    await this.parse(DbReset)
    const [{ resetSchema }, { pushView }] = await Promise.all([
      import('../../db/schema.ts'),
      import('../../db/views.ts'),
    ])
    const db = await this.database({ anyContract: true })
    await this.consent(db.target.consentName, `remove everything tms stored in ${db.target.name}`)
    const report = await resetSchema(db, await this.sqlFiles())
    return this.show(pushView, { target: db.target.name, ...report, catalogue: 'It is empty now: tms init' })
  }
}
