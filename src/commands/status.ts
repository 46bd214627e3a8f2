import { TmsCommand } from '../ui/command.ts'

export default class Status extends TmsCommand {
  static override summary = 'show which database this is, its environment and what is in it'
  static override examples = ['<%= config.bin %> status', '<%= config.bin %> status --profile production --json']

  async run(): Promise<void> {
    await this.parse(Status)
    const [{ status }, { statusView }] = await Promise.all([import('../setup/status.ts'), import('../setup/views.ts')])
    return this.show(statusView, await status(await this.database()))
  }
}
