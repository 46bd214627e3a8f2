import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class DlqList extends TmsCommand {
  static override summary = 'list dead letters, newest first'
  static override examples = [
    '<%= config.bin %> dlq list --status open',
    '<%= config.bin %> dlq list --tenant acme --class timeout --json',
  ]
  static override flags = {
    tenant: Flags.string({ description: 'only of this tenant', helpValue: '<key>' }),
    class: Flags.option({
      options: ['timeout', 'validation', 'external_api', 'quota_exceeded', 'policy', 'bug'] as const,
    })({ description: 'only that failed so' }),
    status: Flags.option({ options: ['open', 'replaying', 'replayed', 'discarded'] as const })({
      description: 'only in this state',
    }),
    limit: Flags.integer({ description: 'the newest so many', default: 20, min: 1, max: 1000 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(DlqList)
    const [{ listLetters }, { lettersView }] = await Promise.all([
      import('../../dlq/dlq.ts'),
      import('../../dlq/views.ts'),
    ])
    return this.show(lettersView, await listLetters(await this.database(), flags))
  }
}
