import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class AgentsShow extends TmsCommand {
  static override summary = 'show one agent: its state, its queue and the policy that is loaded'
  static override examples = ['<%= config.bin %> agents show rates', '<%= config.bin %> agents show rates --json']
  static override args = { agent: Args.string({ required: true, description: 'the agent' }) }
  static override flags = {
    tenant: Flags.string({ description: "only this tenant's tasks", helpValue: '<key>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(AgentsShow)
    const [{ showAgent }, { agentView }] = await Promise.all([
      import('../../agents/list.ts'),
      import('../../agents/views.ts'),
    ])
    return this.show(agentView, await showAgent(await this.database(), { agent: args.agent, tenant: flags.tenant }))
  }
}
