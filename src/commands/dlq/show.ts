import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class DlqShow extends TmsCommand {
  static override summary = 'show one dead letter with its payload'
  static override examples = ['<%= config.bin %> dlq show 17', '<%= config.bin %> dlq show 17 --json']
  static override args = { letter: Args.string({ required: true, description: 'id of the dead letter' }) }
  static override flags = { tenant: Flags.string({ description: 'the tenant it is of', helpValue: '<key>' }) }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(DlqShow)
    const [{ showLetter }, { letterView }] = await Promise.all([
      import('../../dlq/dlq.ts'),
      import('../../dlq/views.ts'),
    ])
    return this.show(letterView, await showLetter(await this.database(), { id: args.letter, tenant: flags.tenant }))
  }
}
