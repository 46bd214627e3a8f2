import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class UsersList extends TmsCommand {
  static override summary = 'list people, their roles and how they sign in'
  static override examples = ['<%= config.bin %> users list', '<%= config.bin %> users list --tenant acme --json']
  static override flags = {
    tenant: Flags.string({ description: 'only people with a role in this tenant', helpValue: '<key>' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(UsersList)
    const [{ listUsers }, { usersView }] = await Promise.all([
      import('../../users/users.ts'),
      import('../../users/views.ts'),
    ])
    return this.show(usersView, await listUsers(await this.database(), flags))
  }
}
