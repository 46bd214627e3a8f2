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
    const [{ diffEvidence }, { diffView }] = await Promise.all([
      import('../../evidence/diff.ts'),
      import('../../evidence/verify-views.ts'),
    ])
    const { values } = await this.settings()
    return this.show(diffView, await diffEvidence(join(values.artifacts, 'green-posture'), args.from, args.to))
  }
}
