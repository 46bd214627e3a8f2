import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class IncidentResolve extends TmsCommand {
  static override summary = 'say that it is over'
  static override examples = [
    '<%= config.bin %> incident resolve 7 --why "rates loaded again"',
    '<%= config.bin %> incident resolve 7 --why "a false alarm" --json',
  ]
  static override args = {
    id: Args.string({ required: true, description: 'the incident' }),
  }
  static override flags = {
    tenant: Flags.string({ description: 'whose it is; needed by people of a tenant', helpValue: '<key>' }),
    why: Flags.string({ required: true, description: 'what ended it', helpValue: '<reason>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(IncidentResolve)
    const [{ workOn }, { workedView }] = await Promise.all([
      import('../../incident/incidents.ts'),
      import('../../incident/views.ts'),
    ])
    const on = { id: args.id, tenant: flags.tenant, text: flags.why }
    return this.show(workedView, await workOn(await this.database(), 'resolve', on))
  }
}
