import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class LedgerExport extends TmsCommand {
  static override summary = 'write rows of the ledger to a file that can be verified without the database'
  static override description =
    'JSON lines, with the checkpoint they lead to at the end. Rows that you may not see, or only redacted, are there as hashes. Without --to: up to the newest checkpoint.'
  static override examples = [
    '<%= config.bin %> ledger export --out ledger.jsonl',
    '<%= config.bin %> ledger export --from 1000 --to 2000 --redacted --out part.jsonl',
  ]
  static override flags = {
    from: Flags.string({ description: 'the first row', helpValue: '<row>', default: '0' }),
    to: Flags.string({ description: 'the row to end before', helpValue: '<row>' }),
    out: Flags.string({ required: true, description: 'the file to write', helpValue: '<file>' }),
    redacted: Flags.boolean({ description: 'without subjects, reasons and bodies; it can still be verified' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(LedgerExport)
    const [{ exportText, planExport }, { exportedView }, { writeFileAtomically }] = await Promise.all([
      import('../../ledger/export.ts'),
      import('../../ledger/views.ts'),
      import('../../files.ts'),
    ])
    const db = await this.database()
    const plan = await planExport(db, flags)
    const progress = await this.progress('Exporting')
    const report = (rows: number) => progress.update(`Exporting: ${rows} of ${plan.header.to - plan.header.from} rows`)
    await writeFileAtomically(flags.out, exportText(db, plan, { ...flags, report }))
    progress.done()
    return this.show(exportedView, { ...plan, out: flags.out, redacted: flags.redacted })
  }
}
