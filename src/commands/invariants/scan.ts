import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class InvariantsScan extends TmsCommand {
  static override summary = 'check what must be true; open, heal and escalate incidents; record the drift score'
  static override description =
    'Exit 0: all hold. 1: one is violated. 3: one could not be checked, and none is violated. --correct also tries the corrections that policies have, within their bounds.'
  static override examples = [
    '<%= config.bin %> invariants scan',
    '<%= config.bin %> invariants scan --id NO_ORPHANED_SALE_ITEMS --correct',
    '<%= config.bin %> invariants scan --due --correct --json',
  ]
  static override flags = {
    id: Flags.string({
      description: 'only these',
      helpValue: '<id,id>',
      delimiter: ',',
      multiple: true,
      exclusive: ['due'],
    }),
    due: Flags.boolean({ description: 'only those whose interval is over' }),
    correct: Flags.boolean({ description: 'correct what a policy allows to be corrected' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(InvariantsScan)
    const [{ scanInvariants, scanVerdict, unknownScan }, { scanView }] = await Promise.all([
      import('../../invariants/scan.ts'),
      import('../../invariants/views.ts'),
    ])
    const db = await this.database()
    const progress = await this.progress('Checking the invariants')
    const report = (invariant: string) => progress.update(`Checking ${invariant}`)
    const scan = await scanInvariants(db, { ids: flags.id, due: flags.due, correct: flags.correct, report })
    progress.done()
    const verdict = scanVerdict(scan)
    if (verdict === 'violated') return this.finding(scanView, scan)
    return verdict === 'holds' ? this.show(scanView, scan) : this.unknown(scanView, scan, unknownScan(scan))
  }
}
