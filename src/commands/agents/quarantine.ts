import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class AgentsQuarantine extends TmsCommand {
  static override summary = 'take an agent out of the fleet: as pause, and said to be under suspicion'
  static override description =
    'Asks nothing. What it holds goes back to its queue. For a tenant there is pause. Exit 3: something that was committing then may still commit; it is named.'
  static override examples = [
    '<%= config.bin %> agents quarantine rates --why "it answers to injected text"',
    '<%= config.bin %> agents quarantine rates --why "ticket 4711" --json',
  ]
  static override args = { agent: Args.string({ required: true, description: 'the agent' }) }
  static override flags = {
    why: Flags.string({ required: true, description: 'the reason, for the ledger', helpValue: '<reason>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(AgentsQuarantine)
    const [{ notSettled, steer }, { steeredView }] = await Promise.all([
      import('../../agents/control.ts'),
      import('../../agents/views.ts'),
    ])
    const what = { kind: 'agent', name: args.agent } as const
    const db = await this.database()
    const steered = await this.uncancellable(() => steer(db, 'quarantine', what, flags.why))
    const problem = notSettled(steered)
    return problem === null ? this.show(steeredView, steered) : this.unknown(steeredView, steered, problem)
  }
}
