import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class IncidentAck extends TmsCommand {
  static override summary = 'say that you have it'
  static override examples = [
    '<%= config.bin %> incident ack 7',
    '<%= config.bin %> incident ack 7 --tenant acme --json',
  ]
  static override args = {
    id: Args.string({ required: true, description: 'the incident' }),
  }
  static override flags = {
    tenant: Flags.string({ description: 'whose it is; needed by people of a tenant', helpValue: '<key>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(IncidentAck)
    const [{ workOn }, { workedView }] = await Promise.all([
      import('../../incident/incidents.ts'),
      import('../../incident/views.ts'),
    ])
    const on = { id: args.id, tenant: flags.tenant }
    return this.show(workedView, await workOn(await this.database(), 'ack', on))
  }
}
