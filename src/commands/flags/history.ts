import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class FlagsHistory extends TmsCommand {
  static override summary = 'show who changed flags, when and why'
  static override examples = [
    '<%= config.bin %> flags history',
    '<%= config.bin %> flags history autonomy.mode --limit 5 --json',
  ]
  static override args = { flag: Args.string({ description: 'only this flag' }) }
  static override flags = {
    tenant: Flags.string({ description: 'global changes and those of this tenant', helpValue: '<key>' }),
    limit: Flags.integer({ description: 'the newest so many', default: 20, min: 1, max: 1000 }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(FlagsHistory)
    const [{ flagHistory }, { historyView }] = await Promise.all([
      import('../../flags/flags.ts'),
      import('../../flags/views.ts'),
    ])
    const { tenant, limit } = flags
    return this.show(historyView, await flagHistory(await this.database(), { key: args.flag, tenant, limit }))
  }
}
