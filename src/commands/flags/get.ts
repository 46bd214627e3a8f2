import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class FlagsGet extends TmsCommand {
  static override summary = 'show one flag: what applies, and where it is set'
  static override examples = [
    '<%= config.bin %> flags get autonomy.mode',
    '<%= config.bin %> flags get budget.agents.maxConcurrent --tenant acme',
  ]
  static override args = { flag: Args.string({ required: true, description: 'the flag' }) }
  static override flags = { tenant: Flags.string({ description: 'what applies to this tenant', helpValue: '<key>' }) }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(FlagsGet)
    const [{ getFlag }, { flagView }] = await Promise.all([
      import('../../flags/flags.ts'),
      import('../../flags/views.ts'),
    ])
    return this.show(flagView, await getFlag(await this.database(), { key: args.flag, tenant: flags.tenant }))
  }
}
