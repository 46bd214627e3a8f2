import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class IncidentNote extends TmsCommand {
  static override summary = 'write something into the timeline'
  static override examples = [
    '<%= config.bin %> incident note 7 "the carrier changed its format"',
    '<%= config.bin %> incident note 7 "called them" --tenant acme',
  ]
  static override args = {
    id: Args.string({ required: true, description: 'the incident' }),
    text: Args.string({ required: true, description: 'the words' }),
  }
  static override flags = {
    tenant: Flags.string({ description: 'whose it is; needed by people of a tenant', helpValue: '<key>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(IncidentNote)
    const [{ workOn }, { workedView }] = await Promise.all([
      import('../../incident/incidents.ts'),
      import('../../incident/views.ts'),
    ])
    const on = { id: args.id, tenant: flags.tenant, text: args.text }
    return this.show(workedView, await workOn(await this.database(), 'note', on))
  }
}
