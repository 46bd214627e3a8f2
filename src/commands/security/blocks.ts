import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class SecurityBlocks extends TmsCommand {
  static override summary = 'list who is shut out, for what and until when'
  static override examples = ['<%= config.bin %> security blocks', '<%= config.bin %> security blocks --all --json']
  static override flags = {
    all: Flags.boolean({ description: 'also those whose time is over' }),
    limit: Flags.integer({ description: 'the last so many', default: 20, min: 1, max: 1000 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(SecurityBlocks)
    const [{ listBlocks }, { blocksView }] = await Promise.all([
      import('../../security/security.ts'),
      import('../../security/views.ts'),
    ])
    return this.show(blocksView, await listBlocks(await this.database(), flags))
  }
}
