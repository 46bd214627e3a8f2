import { Flags } from '@oclif/core'
import type { Driver } from '../../drivers/driver.ts'
import type { Verification } from '../../ledger/findings.ts'
import { TmsCommand } from '../../ui/command.ts'

export default class LedgerVerify extends TmsCommand {
  static override summary = 'check that nothing in the ledger was changed, taken out, or cut off'
  static override description =
    'In the database: every row, the chain, the tree, and nothing left unsealed: what waits is sealed first. With --checkpoint also that the rows are still those it was made of: the only protection against somebody who may write every table. With --export a file instead, without the database. Exit 1: something does not fit, rows that can not be sealed, or an export that no key vouches for. 3: nothing is sealed yet.'
  static override examples = [
    '<%= config.bin %> ledger verify --checkpoint checkpoint.txt --key key.pem',
    '<%= config.bin %> ledger verify --export ledger.jsonl --key key.pem',
  ]
  static override flags = {
    checkpoint: Flags.string({ description: 'a checkpoint that was kept elsewhere', helpValue: '<file>' }),
    key: Flags.string({ description: 'the public key to believe, PEM', helpValue: '<file>' }),
    'witness-key': Flags.string({
      description: 'public key of a witness who must have signed that checkpoint; may be given again',
      helpValue: '<file>',
      dependsOn: ['checkpoint'],
      exclusive: ['export'],
      multiple: true,
      multipleNonGreedy: true,
    }),
    export: Flags.string({ description: 'verify this file instead of the database', helpValue: '<file>' }),
    'allow-unanchored': Flags.boolean({ description: 'exit 0 for an export that fits together, whoever made it' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(LedgerVerify)
    const [{ readPublicKey, readText, verifyExportFile }, { verifyLedger, verificationUnknown }, { verificationView }] =
      await Promise.all([
        import('../../ledger/files.ts'),
        import('../../ledger/verify.ts'),
        import('../../ledger/views.ts'),
      ])
    const outside = {
      key: flags.key === undefined ? undefined : await readPublicKey(flags.key),
      checkpoint: flags.checkpoint === undefined ? undefined : await readText(flags.checkpoint),
    }
    if (flags.export !== undefined) {
      const v = await verifyExportFile(flags.export, outside)
      const good = v.verdict === 'verified' || (v.verdict === 'unanchored' && flags['allow-unanchored'])
      return good ? this.show(verificationView, v) : this.finding(verificationView, v)
    }
    const db = await this.database()
    const progress = await this.progress('Verifying')
    const report = (checked: number, of: number) => progress.update(`Verifying: ${checked} of ${of} rows`)
    const witnesses = await Promise.all((flags['witness-key'] ?? []).map(readPublicKey))
    const sealing = (rows: number) => progress.update(`Sealing first: ${rows} rows`)
    const v = await verifyLedger(db, { ...outside, witnesses, report, sealing })
    progress.done()
    if (v.verdict === 'broken') await this.openIncident(db, v)
    const problem = verificationUnknown(v)
    if (problem !== null) return this.unknown(verificationView, v, problem)
    const good = v.verdict === 'verified' || v.verdict === 'unanchored'
    return good ? this.show(verificationView, v) : this.finding(verificationView, v)
  }

  /** A broken ledger is an incident. That it can't be opened changes nothing about the finding. */
  private async openIncident(db: Driver, v: Verification): Promise<void> {
    const { reportBrokenLedger } = await import('../../security/security.ts')
    try {
      const { incident } = await reportBrokenLedger(db, v)
      this.warn(`This is incident ${incident}: tms incident show ${incident}`)
    } catch (error) {
      this.warn(`No incident could be opened: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
}
