import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class AgentsDrain extends TmsCommand {
  static override summary = 'let an agent, or all work for a tenant, run out: nothing new, what runs may end'
  static override description = 'Asks nothing. What is in hand ends as usual; agents status shows how much is left.'
  static override examples = [
    '<%= config.bin %> agents drain rates --why "new version tonight"',
    '<%= config.bin %> agents drain --tenant acme --why "moves to another region"',
  ]
  static override args = { agent: Args.string({ description: 'the agent' }) }
  static override flags = {
    tenant: Flags.string({ description: 'all agents, for this tenant', helpValue: '<key>' }),
    why: Flags.string({ required: true, description: 'the reason, for the ledger', helpValue: '<reason>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(AgentsDrain)
    const [{ steer, steerable }, { steeredView }] = await Promise.all([
      import('../../agents/control.ts'),
      import('../../agents/views.ts'),
    ])
    const what = steerable('drain', args.agent, flags.tenant)
    const db = await this.database()
    return this.show(steeredView, await this.uncancellable(() => steer(db, 'drain', what, flags.why)))
  }
}
