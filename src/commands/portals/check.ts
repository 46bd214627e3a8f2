import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class PortalsCheck extends TmsCommand {
  static override summary = 'check whether a portal opens, for you or for a role'
  static override description = 'Exit 0: it opens (to read or to write). 1: it does not, with the reason.'
  static override examples = [
    '<%= config.bin %> portals check broker --as dispatcher',
    '<%= config.bin %> portals check crm --tenant acme',
  ]
  static override args = { portal: Args.string({ required: true, description: 'the portal' }) }
  static override flags = {
    as: Flags.string({ description: 'for this role instead of your own', helpValue: '<role>' }),
    tenant: Flags.string({ description: 'in this tenant', helpValue: '<key>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(PortalsCheck)
    const [{ checkPortal, opens }, { portalView }] = await Promise.all([
      import('../../portals/portals.ts'),
      import('../../portals/views.ts'),
    ])
    const result = await checkPortal(await this.database(), { ...flags, portal: args.portal })
    return opens(result) ? this.show(portalView, result) : this.finding(portalView, result)
  }
}
