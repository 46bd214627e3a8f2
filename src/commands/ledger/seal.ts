import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class LedgerSeal extends TmsCommand {
  static override summary = 'give every recorded action that waits its place in the ledger'
  static override description =
    'A running fleet does this by itself. Safe at any time and as often as you like: it waits for nobody, and what is sealed is not sealed again.'
  static override examples = ['<%= config.bin %> ledger seal', '<%= config.bin %> ledger seal --everything --json']
  static override flags = {
    everything: Flags.boolean({ description: 'look through all that was ever recorded for rows that were missed' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(LedgerSeal)
    const [{ sealLedger }, { sealedView }] = await Promise.all([
      import('../../ledger/ledger.ts'),
      import('../../ledger/views.ts'),
    ])
    const db = await this.database()
    const progress = await this.progress('Sealing')
    const sealed = await sealLedger(db, {
      everything: flags.everything,
      report: (rows) => progress.update(`Sealing: ${rows} rows`),
    })
    progress.done()
    return this.show(sealedView, sealed)
  }
}
