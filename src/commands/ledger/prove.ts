import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class LedgerProve extends TmsCommand {
  static override summary = 'print a proof that a row is in the ledger, or that an older checkpoint is its beginning'
  static override description =
    'Both can be checked without this database: the first is a C2SP tlog-proof that ends with a signed checkpoint, the second holds sizes, roots and the hashes between them.'
  static override examples = [
    '<%= config.bin %> ledger prove 17 --out row-17.tlog-proof',
    '<%= config.bin %> ledger prove --from checkpoint.txt > consistency.txt',
    '<%= config.bin %> ledger prove --from artifacts/green-posture/2026-10-31/checkpoint.txt --to kept.txt --out proof.txt',
  ]
  static override args = { row: Args.string({ description: 'number of the row' }) }
  static override flags = {
    from: Flags.string({ description: 'the older checkpoint', helpValue: '<file>' }),
    to: Flags.string({
      description: 'the newer checkpoint; without it: the newest that is stored',
      helpValue: '<file>',
      dependsOn: ['from'],
    }),
    out: Flags.string({ description: 'write the proof to this file', helpValue: '<file>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(LedgerProve)
    if ((args.row === undefined) === (flags.from === undefined)) {
      throw this.usage(
        'Name a row, or a checkpoint with --from.',
        'There are two kinds of proof; one is made at a time.',
      )
    }
    const [{ proveConsistency, proveRow }, { proofView, writtenView }, { readText }] = await Promise.all([
      import('../../ledger/prove.ts'),
      import('../../ledger/views.ts'),
      import('../../ledger/files.ts'),
    ])
    const older = flags.from === undefined ? null : await readText(flags.from)
    const newer = flags.to === undefined ? undefined : await readText(flags.to)
    const db = await this.database()
    const proof = older === null ? await proveRow(db, args.row ?? '') : await proveConsistency(db, older, newer)
    if (flags.out === undefined) return this.show(proofView, proof)
    const { writeFileAtomically } = await import('../../files.ts')
    await writeFileAtomically(flags.out, proof.text)
    return this.show(writtenView, { ...proof, out: flags.out, what: `a proof of ${proof.kind}` })
  }
}
