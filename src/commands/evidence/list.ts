import { join } from 'node:path'
import { TmsCommand } from '../../ui/command.ts'

export default class EvidenceList extends TmsCommand {
  static override summary = 'list the packs and tombstones of the artifacts folder, as they say themselves'
  static override examples = ['<%= config.bin %> evidence list', '<%= config.bin %> evidence list --json']

  async run(): Promise<void> {
    await this.parse(EvidenceList)
    const [{ listEvidence }, { listView }, { settleEvidence }, { self }] = await Promise.all([
      import('../../evidence/list.ts'),
      import('../../evidence/verify-views.ts'),
      import('../../evidence/prune.ts'),
      import('../../config/self.ts'),
    ])
    const root = join((await this.settings({ create: true })).values.artifacts, 'green-posture')
    await settleEvidence(root, self)
    return this.show(listView, await listEvidence(root))
  }
}
