import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class LedgerTail extends TmsCommand {
  static override summary = 'show the newest actions and refusals: who did what, when and why'
  static override examples = [
    '<%= config.bin %> ledger tail',
    '<%= config.bin %> ledger tail --tenant acme --limit 50 --json',
  ]
  static override flags = {
    tenant: Flags.string({ description: 'only what concerned this tenant', helpValue: '<key>' }),
    limit: Flags.integer({ description: 'the newest so many', default: 20, min: 1, max: 1000 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(LedgerTail)
    const [{ ledgerTail }, { ledgerView }] = await Promise.all([
      import('../../ledger/ledger.ts'),
      import('../../ledger/views.ts'),
    ])
    return this.show(ledgerView, await ledgerTail(await this.database(), flags))
  }
}
