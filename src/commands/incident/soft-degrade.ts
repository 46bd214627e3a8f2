import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class IncidentSoftDegrade extends TmsCommand {
  static override summary = 'fewer slots, no replays, and flags that are being tried go to their safe value'
  static override description =
    "Asks nothing. Opens a P2 that remembers what was changed; resume restores exactly that, and leaves what somebody changed since. With --tenant, or TMS_TENANT, only what is that tenant's."
  static override examples = [
    '<%= config.bin %> incident soft-degrade --why "too many errors"',
    '<%= config.bin %> incident soft-degrade --tenant acme --json',
  ]
  static override flags = {
    tenant: Flags.string({ description: 'only this tenant', helpValue: '<key>' }),
    why: Flags.string({ description: 'the reason, for the ledger', helpValue: '<reason>', default: 'soft degrade' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(IncidentSoftDegrade)
    const [{ softDegrade }, { degradedView }] = await Promise.all([
      import('../../incident/levers.ts'),
      import('../../incident/views.ts'),
    ])
    const db = await this.database()
    return this.show(degradedView, await this.uncancellable(() => softDegrade(db, flags)))
  }
}
