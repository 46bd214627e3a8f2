import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class UsersGrant extends TmsCommand {
  static override summary = 'give a person a role, and say how they sign in'
  static override examples = [
    '<%= config.bin %> users grant ann@acme.example --role ops_manager --tenant acme --subject 5f0c9a52-6c1e-4d5a-9f0e-0d8f6b0d8a11',
    '<%= config.bin %> users grant bob@example.com --role developer --login bob --expires 30d',
  ]
  static override args = { who: Args.string({ required: true, description: 'e-mail address or plain name' }) }
  static override flags = {
    role: Flags.string({ required: true, description: 'the role (policies/roles.yaml)' }),
    tenant: Flags.string({ description: "the tenant, for a tenant's roles", helpValue: '<key>' }),
    expires: Flags.string({ description: 'the role ends after so long', helpValue: '<30d>' }),
    subject: Flags.string({
      description: 'they sign in with tokens of this subject (sub)',
      helpValue: '<sub>',
      exclusive: ['login', 'local'],
    }),
    login: Flags.string({ description: 'they sign in as this Postgres login', exclusive: ['local'] }),
    local: Flags.string({
      description: 'they are this operating-system user (embedded database)',
      helpValue: '<user>',
    }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(UsersGrant)
    const [{ grantRole }, { rolesView }] = await Promise.all([
      import('../../users/users.ts'),
      import('../../users/views.ts'),
    ])
    return this.show(rolesView, await grantRole(await this.database(), { ...flags, who: args.who, now: new Date() }))
  }
}
