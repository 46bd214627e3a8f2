import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class OutboxLag extends TmsCommand {
  static override summary = 'tell how long deliveries take, against what they may take'
  static override description =
    'At most 5 s for 95 of 100, and 2 s on average; what waits counts with its age. Exit 0: within. 1: not. 3: nothing was there to measure.'
  static override examples = [
    '<%= config.bin %> outbox lag',
    '<%= config.bin %> outbox lag --tenant acme --minutes 60 --json',
  ]
  static override flags = {
    tenant: Flags.string({ description: 'only of this tenant', helpValue: '<key>' }),
    minutes: Flags.integer({ description: 'of the last so many', default: 15, min: 1, max: 1440 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(OutboxLag)
    const [{ lagUnknown, outboxLag }, { lagView }] = await Promise.all([
      import('../../outbox/outbox.ts'),
      import('../../outbox/views.ts'),
    ])
    const lag = await outboxLag(await this.database(), flags)
    const problem = lagUnknown(lag)
    if (problem !== null) return this.unknown(lagView, lag, problem)
    return lag.verdict === 'ok' ? this.show(lagView, lag) : this.finding(lagView, lag)
  }
}
