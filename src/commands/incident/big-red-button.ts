import { Flags } from '@oclif/core'
import { ButtonCommand } from '../../ui/button-command.ts'

export default class IncidentBigRedButton extends ButtonCommand {
  static override summary = 'halt the whole fleet, now'
  static override description =
    'Asks nothing. Exit 0: nothing autonomous commits until resume. Exit 3: that is not so, and it says what may still commit. Then it opens a P1, tells people, and writes a signed certificate; what of that could not be done is said. Pressed again it joins the incident that is open.'
  static override examples = [
    '<%= config.bin %> incident big-red-button',
    '<%= config.bin %> incident big-red-button --reason "rates are wrong" --json',
  ]
  static override flags = {
    reason: Flags.string({ description: 'for the record', helpValue: '<words>', default: '' }),
  }

  async run(): Promise<void> {
    const said = 'The halt can no longer be cancelled; it says in a moment what became of it.'
    return this.uncancellable(async (late) => {
      const { flags } = await this.parse(IncidentBigRedButton)
      await this.press(flags.reason, late)
    }, said)
  }
}
