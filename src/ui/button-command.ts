import { TmsCommand } from './command.ts'

/** A command that may press the big red button. */
export abstract class ButtonCommand extends TmsCommand {
  /** `late`: aborted when what follows the halt has no time left. */
  protected async press(reason: string, late: AbortSignal): Promise<void> {
    const [{ pressHere }, { notFenced }, { hurried }, { buttonHere }, settings] = await Promise.all([
      import('../incident/here.ts'),
      import('../incident/press.ts'),
      import('../config/connections.ts'),
      import('../config/button.ts'),
      this.settings(),
    ])
    const open = () => this.openDatabase(hurried(settings.connection))
    const warn = (text: string) => void this.warn(text)
    const pressed = await pressHere(buttonHere(settings, process.env, { open, warn, late }), reason)
    const { pressedView } = await import('../incident/views.ts')
    const problem = notFenced(pressed)
    return problem === null ? this.show(pressedView, pressed) : this.unknown(pressedView, pressed, problem)
  }
}
