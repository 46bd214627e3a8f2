import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class DlqSnooze extends TmsCommand {
  static override summary = 'leave dead letters out of replays for a while'
  static override description = 'Exit 1: not all of them are open dead letters of the tenant.'
  static override examples = [
    '<%= config.bin %> dlq snooze 17 18 --tenant acme --for 2h --why "carrier is down"',
    '<%= config.bin %> dlq snooze 17 --tenant acme --until 2027-01-31T08:00:00Z --why "ticket 4711"',
  ]
  static override args = {
    letters: Args.string({ required: true, multiple: true, description: 'ids of the dead letters' }),
  }
  static override flags = {
    tenant: Flags.string({ required: true, description: 'the tenant they are of', helpValue: '<key>' }),
    for: Flags.string({ description: 'so long from now', helpValue: '<2h>', exclusive: ['until'] }),
    until: Flags.string({ description: 'until then, with its time zone', helpValue: '<time>' }),
    why: Flags.string({ required: true, description: 'the reason, for the ledger', helpValue: '<reason>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(DlqSnooze)
    const [{ snooze, snoozeEnd }, { disposedView }] = await Promise.all([
      import('../../dlq/dlq.ts'),
      import('../../dlq/views.ts'),
    ])
    const until = snoozeEnd(flags, new Date())
    const disposed = await snooze(await this.database(), { ...flags, ids: args.letters }, until)
    return disposed.changed === disposed.ids.length
      ? this.show(disposedView, disposed)
      : this.finding(disposedView, disposed)
  }
}
