import { Args } from '@oclif/core'
import { join } from 'node:path'
import { TmsCommand } from '../../ui/command.ts'

export default class EvidenceShow extends TmsCommand {
  static override summary = 'show what the pack of a day says of itself'
  static override examples = [
    '<%= config.bin %> evidence show 2026-10-31',
    '<%= config.bin %> evidence show 2026-10-31 --json',
  ]
  static override args = {
    day: Args.string({ required: true, description: 'the day, in UTC; also today and yesterday' }),
  }

  async run(): Promise<void> {
    const { args } = await this.parse(EvidenceShow)
    const [{ showEvidence }, { dayView }, { settleEvidence }, { self }, { namedDay }] = await Promise.all([
      import('../../evidence/list.ts'),
      import('../../evidence/verify-views.ts'),
      import('../../evidence/prune.ts'),
      import('../../config/self.ts'),
      import('../../evidence/named-day.ts'),
    ])
    const root = join((await this.settings({ create: true })).values.artifacts, 'green-posture')
    await settleEvidence(root, self)
    return this.show(dayView, await showEvidence(root, namedDay(args.day, new Date())))
  }
}
