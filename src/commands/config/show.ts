import { TmsCommand } from '../../ui/command.ts'

export default class ConfigShow extends TmsCommand {
  static override summary = 'show the settings that apply and where each comes from, without secrets'
  static override examples = [
    '<%= config.bin %> config show',
    '<%= config.bin %> config show --profile production --json',
  ]

  async run(): Promise<void> {
    await this.parse(ConfigShow)
    const settings = await this.settings()
    const [{ showSettings }, { settingsView }] = await Promise.all([
      import('../../config/show.ts'),
      import('../../config/views.ts'),
    ])
    return this.show(settingsView, showSettings(settings))
  }
}
