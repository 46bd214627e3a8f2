import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class PostureActions extends TmsCommand {
  static override summary = 'list what was done because of a breach, and what was undone'
  static override examples = [
    '<%= config.bin %> posture actions',
    '<%= config.bin %> posture actions --limit 50 --json',
  ]
  static override flags = {
    limit: Flags.integer({ description: 'the newest so many', default: 20, min: 1, max: 1000 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(PostureActions)
    const [{ listActions }, { actionsView }] = await Promise.all([
      import('../../posture/act.ts'),
      import('../../posture/views.ts'),
    ])
    return this.show(actionsView, await listActions(await this.database(), flags))
  }
}
