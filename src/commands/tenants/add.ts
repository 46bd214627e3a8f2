import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class TenantsAdd extends TmsCommand {
  static override summary = 'add a tenant'
  static override examples = [
    '<%= config.bin %> tenants add acme --name "Acme Freight"',
    '<%= config.bin %> tenants add globex --name Globex --json',
  ]
  static override args = {
    key: Args.string({ required: true, description: 'short name: lower-case letters, digits, dashes' }),
  }
  static override flags = { name: Flags.string({ description: 'full name (default: the key)' }) }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(TenantsAdd)
    const [{ addTenant }, { tenantAddedView }] = await Promise.all([
      import('../../tenants/tenants.ts'),
      import('../../tenants/views.ts'),
    ])
    return this.show(
      tenantAddedView,
      await addTenant(await this.database(), { key: args.key, name: flags.name ?? args.key }),
    )
  }
}
