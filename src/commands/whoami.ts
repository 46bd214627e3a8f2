import { TmsCommand } from '../ui/command.ts'

export default class Whoami extends TmsCommand {
  static override summary = 'show who you are to the database, your roles and what they allow'
  static override examples = ['<%= config.bin %> whoami', '<%= config.bin %> whoami --profile production --json']

  async run(): Promise<void> {
    await this.parse(Whoami)
    const [{ whoami }, { whoamiView }] = await Promise.all([import('../users/whoami.ts'), import('../users/views.ts')])
    return this.show(whoamiView, await whoami(await this.database()))
  }
}
