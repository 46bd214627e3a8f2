import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class IncidentOpen extends TmsCommand {
  static override summary = 'open an incident, or join the one of the same key'
  static override examples = [
    '<%= config.bin %> incident open "rates do not load" --priority P2',
    '<%= config.bin %> incident open "invoices twice" --priority P1 --tenant acme --key invoices',
  ]
  static override args = { title: Args.string({ required: true, description: 'what is wrong, in a sentence' }) }
  static override flags = {
    priority: Flags.option({ options: ['P1', 'P2', 'P3', 'P4'] as const })({
      description: 'P1 critical to P4 low',
      default: 'P3',
    }),
    type: Flags.string({ description: 'what it is about, one word', helpValue: '<word>' }),
    key: Flags.string({ description: 'symptoms of the same key join', helpValue: '<key>' }),
    tenant: Flags.string({ description: 'whose it is', helpValue: '<key>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(IncidentOpen)
    const [{ openIncident }, { openedView }] = await Promise.all([
      import('../../incident/incidents.ts'),
      import('../../incident/views.ts'),
    ])
    return this.show(openedView, await openIncident(await this.database(), { ...flags, title: args.title }))
  }
}
