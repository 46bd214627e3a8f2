import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class FlagsList extends TmsCommand {
  static override summary = 'list the flags and what applies'
  static override examples = [
    '<%= config.bin %> flags list',
    '<%= config.bin %> flags list --tenant acme --match budget. --json',
  ]
  static override flags = {
    tenant: Flags.string({ description: 'what applies to this tenant', helpValue: '<key>' }),
    match: Flags.string({ description: 'only flags whose name contains this', helpValue: '<text>' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(FlagsList)
    const [{ listFlags }, { flagsView }] = await Promise.all([
      import('../../flags/flags.ts'),
      import('../../flags/views.ts'),
    ])
    return this.show(flagsView, await listFlags(await this.database(), flags))
  }
}
