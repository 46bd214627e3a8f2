import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class InvariantsHistory extends TmsCommand {
  static override summary = 'the drift score over time, and what was violated from when to when'
  static override examples = [
    '<%= config.bin %> invariants history',
    '<%= config.bin %> invariants history --id OUTBOX_WITHIN_SLO --limit 50 --json',
  ]
  static override flags = {
    id: Flags.string({ description: 'only of this invariant', helpValue: '<invariant>' }),
    limit: Flags.integer({ description: 'the newest so many', default: 20, min: 1, max: 1000 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(InvariantsHistory)
    const [{ invariantsHistory }, { historyView }] = await Promise.all([
      import('../../invariants/scan.ts'),
      import('../../invariants/views.ts'),
    ])
    const { id, limit } = flags
    return this.show(historyView, await invariantsHistory(await this.database(), { invariant: id, limit }))
  }
}
