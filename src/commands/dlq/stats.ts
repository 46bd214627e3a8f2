import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class DlqStats extends TmsCommand {
  static override summary = 'count dead letters by tenant, class and state, and show the newest replays'
  static override examples = ['<%= config.bin %> dlq stats', '<%= config.bin %> dlq stats --tenant acme --json']
  static override flags = { tenant: Flags.string({ description: 'only of this tenant', helpValue: '<key>' }) }

  async run(): Promise<void> {
    const { flags } = await this.parse(DlqStats)
    const [{ dlqStats }, { statsView }] = await Promise.all([import('../../dlq/dlq.ts'), import('../../dlq/views.ts')])
    return this.show(statsView, await dlqStats(await this.database(), flags))
  }
}
