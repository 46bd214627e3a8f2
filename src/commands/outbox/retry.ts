import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class OutboxRetry extends TmsCommand {
  static override summary = 'try dead deliveries again, and waiting ones now'
  static override description =
    'Receivers see the id they saw before, so that they can tell a repeat. Exit 1: not all could be tried.'
  static override examples = [
    '<%= config.bin %> outbox retry 4711 4712 --tenant acme --why "receiver is up again"',
    '<%= config.bin %> outbox retry 4711 --tenant acme --why "ticket 4711" --json',
  ]
  static override args = {
    deliveries: Args.string({ required: true, multiple: true, description: 'ids of the deliveries' }),
  }
  static override flags = {
    tenant: Flags.string({
      description: "the tenant they are of; without it the product's own, of no tenant",
      helpValue: '<key>',
    }),
    why: Flags.string({ required: true, description: 'the reason, for the ledger', helpValue: '<reason>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(OutboxRetry)
    const [{ retryDeliveries }, { retriedView }] = await Promise.all([
      import('../../outbox/outbox.ts'),
      import('../../outbox/views.ts'),
    ])
    const retried = await retryDeliveries(await this.database(), { ...flags, ids: args.deliveries })
    return retried.retried === retried.ids.length ? this.show(retriedView, retried) : this.finding(retriedView, retried)
  }
}
