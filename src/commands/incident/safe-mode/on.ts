import { Flags } from '@oclif/core'
import { TmsCommand } from '../../../ui/command.ts'

export default class IncidentSafeModeOn extends TmsCommand {
  static override summary = 'stop every write to guarded tables, those of people too'
  static override description =
    'Asks nothing. Leaving it needs the override token that init printed. Exit 3: something may still commit; it is named.'
  static override examples = [
    '<%= config.bin %> incident safe-mode on --why "data is being damaged"',
    '<%= config.bin %> incident safe-mode on --json',
  ]
  static override flags = {
    why: Flags.string({ description: 'the reason, for the ledger', helpValue: '<reason>', default: 'safe mode' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(IncidentSafeModeOn)
    const [{ safeModeOn, notSafe, unwritten }, { safeModeView }] = await Promise.all([
      import('../../../incident/levers.ts'),
      import('../../../incident/views.ts'),
    ])
    const db = await this.database({ anyContract: true })
    const on = await this.uncancellable(() => safeModeOn(db, flags.why))
    for (const sentence of unwritten(on)) this.warn(sentence)
    const problem = notSafe(on)
    return problem === null ? this.show(safeModeView, on) : this.unknown(safeModeView, on, problem)
  }
}
