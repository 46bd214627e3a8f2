import { TmsCommand } from '../../ui/command.ts'

export default class GuardList extends TmsCommand {
  static override summary = 'list the guarded tables, with their partitions'
  static override examples = ['<%= config.bin %> guard list', '<%= config.bin %> guard list --json']

  async run(): Promise<void> {
    await this.parse(GuardList)
    const [{ guardedTables }, { guardView }] = await Promise.all([
      import('../../guard/guard.ts'),
      import('../../guard/views.ts'),
    ])
    return this.show(guardView, await guardedTables(await this.database()))
  }
}
