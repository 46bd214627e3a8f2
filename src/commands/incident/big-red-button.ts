import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class IncidentBigRedButton extends TmsCommand {
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
    return this.uncancellable((late) => this.press(late), said)
  }

  private async press(late: AbortSignal): Promise<void> {
    const { flags } = await this.parse(IncidentBigRedButton)
    const [{ pressHere }, { notFenced }, { hurried }, { buttonHere }, settings] = await Promise.all([
      import('../../incident/here.ts'),
      import('../../incident/press.ts'),
      import('../../config/connections.ts'),
      import('../../config/button.ts'),
      this.settings(),
    ])
    const open = () => this.openDatabase(hurried(settings.connection))
    const warn = (text: string) => void this.warn(text)
    const pressed = await pressHere(buttonHere(settings, process.env, { open, warn, late }), flags.reason)
    const { pressedView } = await import('../../incident/views.ts')
    const problem = notFenced(pressed)
    return problem === null ? this.show(pressedView, pressed) : this.unknown(pressedView, pressed, problem)
  }
}
