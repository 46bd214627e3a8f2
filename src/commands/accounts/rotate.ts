import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class AccountsRotate extends TmsCommand {
  static override summary = 'give a service account a new credential; the old one goes on for the overlap'
  static override description = `A key's secret is printed once and stored as a hash. For a Postgres login the role is made when this connection may; else the statement to run is printed. For a token, --name is its subject (sub).`
  static override examples = [
    '<%= config.bin %> accounts rotate agents --kind key --overlap 24h',
    '<%= config.bin %> accounts rotate agents --kind postgres --overlap 24h',
    '<%= config.bin %> accounts rotate ci --kind jwt --name 0b8de6f0-6a7b-4a41-8f57-3a1f6f0b5c1d',
  ]
  static override args = {
    account: Args.string({ required: true, description: 'autopilot, agents, dlq, ci, n8n or system' }),
  }
  static override flags = {
    kind: Flags.option({ options: ['key', 'postgres', 'jwt'] as const })({
      required: true,
      description: 'what kind of credential; only older ones of this kind retire',
    }),
    name: Flags.string({ description: 'its name (default: made from the account and the time)' }),
    overlap: Flags.string({
      description: 'how long older ones of the same kind still work',
      default: '24h',
      helpValue: '<24h>',
    }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(AccountsRotate)
    const [{ rotateAccount }, { rotatedView }] = await Promise.all([
      import('../../accounts/accounts.ts'),
      import('../../accounts/views.ts'),
    ])
    const { account } = args
    const rotated = await rotateAccount(await this.database(), { ...flags, account, now: new Date() })
    if (rotated.secret !== null) {
      this.lostUnlessShown(
        `The secret of ${rotated.credential.name} reached nobody and is lost, and older credentials end after ${flags.overlap}. Rotate again: tms accounts rotate ${account} --kind ${flags.kind} --overlap ${flags.overlap}`,
      )
    }
    return this.show(rotatedView, rotated)
  }
}
