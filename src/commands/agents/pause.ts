import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class AgentsPause extends TmsCommand {
  static override summary = 'stop an agent, or all work for a tenant: nothing new, and nothing that runs commits'
  static override description =
    'Asks nothing. Waits until what was committing has ended, and says so. Exit 3: something that was committing then may still commit; it is named.'
  static override examples = [
    '<%= config.bin %> agents pause rates --why "prices look wrong"',
    '<%= config.bin %> agents pause --tenant acme --why "ticket 4711"',
  ]
  static override args = { agent: Args.string({ description: 'the agent' }) }
  static override flags = {
    tenant: Flags.string({ description: 'all agents, for this tenant', helpValue: '<key>' }),
    why: Flags.string({ required: true, description: 'the reason, for the ledger', helpValue: '<reason>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(AgentsPause)
    const [{ notSettled, steer, steerable }, { steeredView }] = await Promise.all([
      import('../../agents/control.ts'),
      import('../../agents/views.ts'),
    ])
    const what = steerable('pause', args.agent, flags.tenant)
    const db = await this.database()
    const steered = await this.uncancellable(() => steer(db, 'pause', what, flags.why))
    const problem = notSettled(steered)
    return problem === null ? this.show(steeredView, steered) : this.unknown(steeredView, steered, problem)
  }
}
