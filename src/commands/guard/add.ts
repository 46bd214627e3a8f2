import { Args } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class GuardAdd extends TmsCommand {
  static override summary = 'guard a table of yours: while the fleet is halted no machine writes to it'
  static override description =
    'Done as the owner of the table, by SQL. Again after adding a partition; a second time changes nothing.'
  static override examples = [
    '<%= config.bin %> guard add public.orders',
    `<%= config.bin %> guard add 'public."Orders"' --json`,
  ]
  static override args = { table: Args.string({ required: true, description: 'the table, as in SQL' }) }

  async run(): Promise<void> {
    const { args } = await this.parse(GuardAdd)
    const [{ guardTable }, { guardedView }] = await Promise.all([
      import('../../guard/guard.ts'),
      import('../../guard/views.ts'),
    ])
    return this.show(guardedView, await guardTable(await this.database(), args.table))
  }
}
