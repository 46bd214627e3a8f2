import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class AgentsList extends TmsCommand {
  static override summary = 'list the agents, their state and their queues'
  static override examples = ['<%= config.bin %> agents list', '<%= config.bin %> agents list --tenant acme --json']
  static override flags = {
    tenant: Flags.string({ description: "only this tenant's tasks", helpValue: '<key>' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(AgentsList)
    const [{ listAgents }, { agentsView }] = await Promise.all([
      import('../../agents/list.ts'),
      import('../../agents/views.ts'),
    ])
    return this.show(agentsView, await listAgents(await this.database(), flags))
  }
}
