import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class IncidentClose extends TmsCommand {
  static override summary = 'nothing is left to do about it'
  static override examples = [
    '<%= config.bin %> incident close 7',
    '<%= config.bin %> incident close 7 --why "postmortem 12"',
  ]
  static override args = {
    id: Args.string({ required: true, description: 'the incident' }),
  }
  static override flags = {
    tenant: Flags.string({ description: 'whose it is; needed by people of a tenant', helpValue: '<key>' }),
    why: Flags.string({ description: 'words for the timeline', helpValue: '<words>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(IncidentClose)
    const [{ workOn }, { workedView }] = await Promise.all([
      import('../../incident/incidents.ts'),
      import('../../incident/views.ts'),
    ])
    const on = { id: args.id, tenant: flags.tenant, text: flags.why }
    return this.show(workedView, await workOn(await this.database(), 'close', on))
  }
}
