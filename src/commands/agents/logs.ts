import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class AgentsLogs extends TmsCommand {
  static override summary = 'show what the agents logged, oldest first'
  static override examples = [
    '<%= config.bin %> agents logs --agent rates --level error',
    '<%= config.bin %> agents logs --task 4711 --json',
  ]
  static override flags = {
    tenant: Flags.string({ description: 'only of this tenant', helpValue: '<key>' }),
    agent: Flags.string({ description: 'only of this agent' }),
    task: Flags.string({ description: 'only of this task', helpValue: '<id>' }),
    level: Flags.option({ options: ['debug', 'info', 'warn', 'error'] as const })({
      description: 'only of this level',
    }),
    limit: Flags.integer({ description: 'the newest so many', default: 50, min: 1, max: 1000 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(AgentsLogs)
    const [{ listLogs }, { logsView }] = await Promise.all([
      import('../../agents/runs.ts'),
      import('../../agents/views.ts'),
    ])
    return this.show(logsView, await listLogs(await this.database(), flags))
  }
}
