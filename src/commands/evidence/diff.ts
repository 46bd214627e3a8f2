import { Args } from '@oclif/core'
import { join } from 'node:path'
import { TmsCommand } from '../../ui/command.ts'

export default class EvidenceDiff extends TmsCommand {
  static override summary = 'tell which facts are others on one day than on another'
  static override examples = [
    '<%= config.bin %> evidence diff 2026-10-30 2026-10-31',
    '<%= config.bin %> evidence diff 2026-10-01 2026-10-31 --json',
  ]
  static override args = {
    from: Args.string({ required: true, description: 'the earlier day' }),
    to: Args.string({ required: true, description: 'the later day' }),
  }

  async run(): Promise<void> {
    const { args } = await this.parse(EvidenceDiff)
    const [{ diffEvidence }, { diffView }, { settleEvidence }, { self }, { namedDay }] = await Promise.all([
      import('../../evidence/diff.ts'),
      import('../../evidence/verify-views.ts'),
      import('../../evidence/prune.ts'),
      import('../../config/self.ts'),
      import('../../evidence/named-day.ts'),
    ])
    const root = join((await this.settings({ create: true })).values.artifacts, 'green-posture')
    await settleEvidence(root, self)
    const now = new Date()
    return this.show(diffView, await diffEvidence(root, namedDay(args.from, now), namedDay(args.to, now)))
  }
}
