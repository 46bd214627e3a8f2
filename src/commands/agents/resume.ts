import { Args, Flags } from '@oclif/core'
import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class AgentsResume extends TmsCommand {
  static override summary = 'let an agent, or all agents for a tenant, work again'
  static override description =
    'Needs consent that names the agent or the tenant. Undoes pause, drain and quarantine, and closes the breaker.'
  static override examples = [
    '<%= config.bin %> agents resume rates --why "prices are right again" --confirm rates',
    '<%= config.bin %> agents resume --tenant acme --why "ticket 4711 is closed" --confirm acme',
  ]
  static override args = { agent: Args.string({ description: 'the agent' }) }
  static override flags = {
    ...consentFlags,
    tenant: Flags.string({ description: 'all agents, for this tenant', helpValue: '<key>' }),
    why: Flags.string({ required: true, description: 'the reason, for the ledger', helpValue: '<reason>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(AgentsResume)
    const [{ standing, steer, steerable }, { steeredView }] = await Promise.all([
      import('../../agents/control.ts'),
      import('../../agents/views.ts'),
    ])
    const what = steerable('resume', args.agent, flags.tenant)
    const db = await this.database()
    const stands = await standing(db, what)
    await this.consent(what.name, `let ${what.kind} ${what.name} work again in ${db.target.name} (it is ${stands})`)
    return this.show(steeredView, await steer(db, 'resume', what, flags.why))
  }
}
