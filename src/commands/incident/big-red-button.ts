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
    return this.uncancellable(() => this.press(), said)
  }

  private async press(): Promise<void> {
    const { flags } = await this.parse(IncidentBigRedButton)
    const [{ pressHere }, { hurried }, { pressPlace }, { signerSources }, settings] = await Promise.all([
      import('../../incident/here.ts'),
      import('../../config/connections.ts'),
      import('../../config/folders.ts'),
      import('../../config/signing.ts'),
      this.settings(),
    ])
    const here = {
      ...pressPlace(settings, process.env),
      signing: () => signerSources(settings, process.env),
      open: () => this.openDatabase(hurried(settings.connection)),
      warn: (text: string) => void this.warn(text),
    }
    const pressed = await pressHere(here, flags.reason)
    const [{ pressedView }, { notFenced }] = await Promise.all([
      import('../../incident/views.ts'),
      import('../../incident/press.ts'),
    ])
    const problem = notFenced(pressed)
    return problem === null ? this.show(pressedView, pressed) : this.unknown(pressedView, pressed, problem)
  }
}
