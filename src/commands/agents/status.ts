import { TmsCommand } from '../../ui/command.ts'

export default class AgentsStatus extends TmsCommand {
  static override summary = 'show whether the fleet works: fence, workers, slots, what is stopped and by whom'
  static override description = 'Exit 0 whatever it shows: it reports, it does not judge.'
  static override examples = ['<%= config.bin %> agents status', '<%= config.bin %> agents status --json']

  async run(): Promise<void> {
    await this.parse(AgentsStatus)
    const [{ fleetStatus }, { statusView }, { stopFileOf }] = await Promise.all([
      import('../../agents/list.ts'),
      import('../../agents/views.ts'),
      import('../../config/folders.ts'),
    ])
    return this.show(
      statusView,
      await fleetStatus(await this.database(), stopFileOf(await this.settings(), process.env)),
    )
  }
}
