import { Args, Flags } from '@oclif/core'
import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class DlqDiscard extends TmsCommand {
  static override summary = 'give dead letters up: they are kept for a year, and never replayed'
  static override description =
    'Needs consent that names the tenant and the dead letters. Exit 1: not all of them are open dead letters of the tenant.'
  static override examples = [
    '<%= config.bin %> dlq discard 17 18 --tenant acme --why "loads were cancelled"',
    '<%= config.bin %> dlq discard 17 18 --tenant acme --why "loads were cancelled" --confirm acme/17,18',
  ]
  static override args = {
    letters: Args.string({ required: true, multiple: true, description: 'ids of the dead letters' }),
  }
  static override flags = {
    ...consentFlags,
    tenant: Flags.string({ required: true, description: 'the tenant they are of', helpValue: '<key>' }),
    why: Flags.string({ required: true, description: 'the reason, for the ledger', helpValue: '<reason>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(DlqDiscard)
    const [{ discard, discardName }, { disposedView }] = await Promise.all([
      import('../../dlq/dlq.ts'),
      import('../../dlq/views.ts'),
    ])
    const { tenant, why } = flags
    const letters = { tenant, why, ids: args.letters }
    const db = await this.database()
    await this.consent(discardName(letters), `discard dead letters ${letters.ids.join(', ')} of ${tenant} for good`)
    const disposed = await discard(db, letters)
    return disposed.changed === disposed.ids.length
      ? this.show(disposedView, disposed)
      : this.finding(disposedView, disposed)
  }
}
