import { Args } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class InvariantsShow extends TmsCommand {
  static override summary = 'show one invariant: its SQL, its bounds, how it stands, what was found last'
  static override examples = [
    '<%= config.bin %> invariants show OUTBOX_WITHIN_SLO',
    '<%= config.bin %> invariants show OUTBOX_WITHIN_SLO --json',
  ]
  static override args = { id: Args.string({ required: true, description: 'the invariant' }) }

  async run(): Promise<void> {
    const { args } = await this.parse(InvariantsShow)
    const [{ showInvariant }, { invariantView }] = await Promise.all([
      import('../../invariants/scan.ts'),
      import('../../invariants/views.ts'),
    ])
    return this.show(invariantView, await showInvariant(await this.database(), args.id))
  }
}
