import { Args } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class LedgerShow extends TmsCommand {
  static override summary = 'show one sealed row with everything it says, and its hashes'
  static override examples = ['<%= config.bin %> ledger show 17', '<%= config.bin %> ledger show 17 --json']
  static override args = { row: Args.string({ required: true, description: 'its number; the newest are in the tail' }) }

  async run(): Promise<void> {
    const { args } = await this.parse(LedgerShow)
    const [{ showLedgerRow }, { rowView }] = await Promise.all([
      import('../../ledger/ledger.ts'),
      import('../../ledger/views.ts'),
    ])
    return this.show(rowView, await showLedgerRow(await this.database(), args.row))
  }
}
