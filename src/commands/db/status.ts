import { TmsCommand } from '../../ui/command.ts'

export default class DbStatus extends TmsCommand {
  static override summary = 'compare the schema of the database with this release'
  static override description =
    'Exit 0: up to date. 1: something is pending or differs. 3: the database could not be asked.'
  static override examples = ['<%= config.bin %> db status', '<%= config.bin %> db status --profile production --json']

  async run(): Promise<void> {
    await this.parse(DbStatus)
    const [{ schemaStatus }, { statusView }] = await Promise.all([
      import('../../db/schema.ts'),
      import('../../db/views.ts'),
    ])
    const status = await schemaStatus(await this.database({ anyContract: true }), await this.sqlFiles())
    return status.upToDate ? this.show(statusView, status) : this.finding(statusView, status)
  }
}
