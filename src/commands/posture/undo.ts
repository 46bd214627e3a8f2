import { Args, Flags } from '@oclif/core'
import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class PostureUndo extends TmsCommand {
  static override summary = 'undo what a breach led to: flags and agents as they were'
  static override description =
    'Needs consent that names the action. What somebody changed since stays as it is. While the breach goes on, it is not done again. Exit 1: something was left as it is.'
  static override examples = [
    '<%= config.bin %> posture undo 12 --why "carrier is up again"',
    '<%= config.bin %> posture undo 12 --why "carrier is up again" --confirm throttle/12',
  ]
  static override args = { action: Args.string({ required: true, description: 'number of the action' }) }
  static override flags = {
    ...consentFlags,
    why: Flags.string({ required: true, description: 'the reason, for the ledger', helpValue: '<reason>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(PostureUndo)
    const [{ actionToUndo, spell, undoAction }, { undoneView }] = await Promise.all([
      import('../../posture/act.ts'),
      import('../../posture/views.ts'),
    ])
    const db = await this.database()
    const { id, name, action, subject, before, after } = await actionToUndo(db, args.action)
    await this.consent(name, `undo the ${action} of ${subject}: from ${spell(after)} back to ${spell(before)}`)
    const undone = await undoAction(db, id, flags.why)
    return undone.left.length === 0 ? this.show(undoneView, undone) : this.finding(undoneView, undone)
  }
}
