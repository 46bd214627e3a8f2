import { TmsCommand } from '../../ui/command.ts'

export default class TenantsList extends TmsCommand {
  static override summary = 'list the tenants'
  static override examples = ['<%= config.bin %> tenants list', '<%= config.bin %> tenants list --json']

  async run(): Promise<void> {
    await this.parse(TenantsList)
    const [{ listTenants }, { tenantsView }] = await Promise.all([
      import('../../tenants/tenants.ts'),
      import('../../tenants/views.ts'),
    ])
    return this.show(tenantsView, await listTenants(await this.database()))
  }
}
