import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class OutboxList extends TmsCommand {
  static override summary = 'list deliveries, newest first, and the targets they go to'
  static override examples = [
    '<%= config.bin %> outbox list --status dead',
    '<%= config.bin %> outbox list --tenant acme --target billing --json',
  ]
  static override flags = {
    tenant: Flags.string({ description: 'only of this tenant', helpValue: '<key>' }),
    target: Flags.string({ description: 'only to this target', helpValue: '<name>' }),
    status: Flags.option({ options: ['pending', 'sending', 'delivered', 'dead'] as const })({
      description: 'only in this state',
    }),
    limit: Flags.integer({ description: 'the newest so many', default: 20, min: 1, max: 1000 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(OutboxList)
    const [{ listOutbox }, { outboxView }] = await Promise.all([
      import('../../outbox/outbox.ts'),
      import('../../outbox/views.ts'),
    ])
    return this.show(outboxView, await listOutbox(await this.database(), flags))
  }
}
