import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class PortalsList extends TmsCommand {
  static override summary = 'list the portals, who may open them, and whether their flag is on'
  static override examples = ['<%= config.bin %> portals list', '<%= config.bin %> portals list --tenant acme --json']
  static override flags = { tenant: Flags.string({ description: 'as set for this tenant', helpValue: '<key>' }) }

  async run(): Promise<void> {
    const { flags } = await this.parse(PortalsList)
    const [{ listPortals }, { portalsView }] = await Promise.all([
      import('../../portals/portals.ts'),
      import('../../portals/views.ts'),
    ])
    return this.show(portalsView, await listPortals(await this.database(), flags))
  }
}
