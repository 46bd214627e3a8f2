import { TmsCommand } from '../../ui/command.ts'

export default class AccountsList extends TmsCommand {
  static override summary = 'list the service accounts and the age of their credentials'
  static override description = 'Exit 1 when one has ended or is due; service account credentials last 90 days.'
  static override examples = ['<%= config.bin %> accounts list', '<%= config.bin %> accounts list --json']

  async run(): Promise<void> {
    await this.parse(AccountsList)
    const [{ accountsDue, listAccounts }, { accountsView }] = await Promise.all([
      import('../../accounts/accounts.ts'),
      import('../../accounts/views.ts'),
    ])
    const result = await listAccounts(await this.database())
    return accountsDue(result) ? this.finding(accountsView, result) : this.show(accountsView, result)
  }
}
