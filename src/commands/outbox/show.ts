import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class OutboxShow extends TmsCommand {
  static override summary = 'show one delivery with its payload'
  static override examples = ['<%= config.bin %> outbox show 4711', '<%= config.bin %> outbox show 4711 --json']
  static override args = { delivery: Args.string({ required: true, description: 'id of the delivery' }) }
  static override flags = { tenant: Flags.string({ description: 'the tenant it is of', helpValue: '<key>' }) }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(OutboxShow)
    const [{ showDelivery }, { deliveryView }] = await Promise.all([
      import('../../outbox/outbox.ts'),
      import('../../outbox/views.ts'),
    ])
    return this.show(
      deliveryView,
      await showDelivery(await this.database(), { id: args.delivery, tenant: flags.tenant }),
    )
  }
}
