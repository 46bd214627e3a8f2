import { TmsCommand } from '../../ui/command.ts'

export default class InvariantsList extends TmsCommand {
  static override summary = 'list the invariants that are loaded, and how the last check of each ended'
  static override examples = ['<%= config.bin %> invariants list', '<%= config.bin %> invariants list --json']

  async run(): Promise<void> {
    await this.parse(InvariantsList)
    const [{ listInvariants }, { listView }] = await Promise.all([
      import('../../invariants/scan.ts'),
      import('../../invariants/views.ts'),
    ])
    return this.show(listView, await listInvariants(await this.database()))
  }
}
