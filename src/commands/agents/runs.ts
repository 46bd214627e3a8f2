import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class AgentsRuns extends TmsCommand {
  static override summary = 'show what the agents tried, newest first; or one task with all its attempts'
  static override description = 'Without --task: of the last day.'
  static override examples = [
    '<%= config.bin %> agents runs --agent rates --outcome failed',
    '<%= config.bin %> agents runs --task 4711 --json',
  ]
  static override flags = {
    tenant: Flags.string({ description: 'only of this tenant', helpValue: '<key>' }),
    agent: Flags.string({ description: 'only of this agent' }),
    task: Flags.string({ description: 'this task, with its payload', helpValue: '<id>' }),
    outcome: Flags.option({
      options: ['completed', 'awaiting_approval', 'failed', 'retried', 'lost', 'returned'] as const,
    })({ description: 'only attempts that ended so' }),
    limit: Flags.integer({ description: 'the newest so many', default: 20, min: 1, max: 1000 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(AgentsRuns)
    const [{ listRuns }, { runsView }] = await Promise.all([
      import('../../agents/runs.ts'),
      import('../../agents/views.ts'),
    ])
    return this.show(runsView, await listRuns(await this.database(), flags))
  }
}
