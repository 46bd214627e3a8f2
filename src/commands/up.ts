import { TmsCommand } from '../ui/command.ts'

export default class Up extends TmsCommand {
  static override summary = 'keep the embedded database open and serve it to other tms processes'
  static override description =
    'Runs until Ctrl-C or SIGTERM. Other commands then go through its socket and start faster. A Postgres or Supabase database has its own server and needs no `tms up`.'
  static override examples = ['<%= config.bin %> up', '<%= config.bin %> up --json']

  async run(): Promise<void> {
    await this.parse(Up)
    const [{ hold }, { upView }] = await Promise.all([import('../setup/up.ts'), import('../setup/views.ts')])
    const held = await hold(await this.database())
    await this.line(upView, held)
    if (held.held) await this.untilSignal()
  }
}
