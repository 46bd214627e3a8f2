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
    const [{ safeModeOn }, { safeModeView }] = await Promise.all([
      import('../../../incident/levers.ts'),
      import('../../../incident/views.ts'),
    ])
    const db = await this.database({ anyContract: true })
    const on = await this.uncancellable(() => safeModeOn(db, flags.why))
    if (on.fenced !== false) return this.show(safeModeView, on)
    return this.unknown(safeModeView, on, {
      code: 'DB_BUSY',
      what: `Safe mode is on, and ${(on.survivors ?? []).join(', ') || 'something'} may still commit.`,
      why: 'What had begun could not be ended: a prepared transaction, or a session of a superuser.',
      next: ['tms incident safe-mode on', 'select gid, prepared, owner from pg_prepared_xacts'],
    })
  }
}
