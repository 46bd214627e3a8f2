import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class UsersRevoke extends TmsCommand {
  static override summary = "take a person's role away, or all of them"
  static override examples = [
    '<%= config.bin %> users revoke ann@acme.example --role ops_manager --tenant acme',
    '<%= config.bin %> users revoke bob@example.com',
  ]
  static override args = { who: Args.string({ required: true, description: 'e-mail address or plain name' }) }
  static override flags = {
    role: Flags.string({ description: 'only this role' }),
    tenant: Flags.string({ description: 'only in this tenant', helpValue: '<key>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(UsersRevoke)
    const [{ revokeRole }, { rolesView }] = await Promise.all([
      import('../../users/users.ts'),
      import('../../users/views.ts'),
    ])
    return this.show(rolesView, await revokeRole(await this.database(), { ...flags, who: args.who }))
  }
}
