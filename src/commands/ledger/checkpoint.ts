import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class LedgerCheckpoint extends TmsCommand {
  static override summary = 'seal what waits, sign the ledger as it is, and print the signed note'
  static override description =
    'Keep it somewhere else: whoever has it can tell later whether rows before it were changed or cut off. The note is a C2SP checkpoint.'
  static override examples = [
    '<%= config.bin %> ledger checkpoint --out checkpoint.txt',
    '<%= config.bin %> ledger checkpoint > checkpoint.txt',
  ]
  static override flags = {
    out: Flags.string({ description: 'write the note to this file', helpValue: '<file>' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(LedgerCheckpoint)
    const [{ makeLedgerCheckpoint }, { noteView, writtenView }, { signerSources }, { usableSigner }] =
      await Promise.all([
        import('../../ledger/checkpoint.ts'),
        import('../../ledger/views.ts'),
        import('../../config/signing.ts'),
        import('../../keys/keys.ts'),
      ])
    const sources = signerSources(await this.settings(), process.env)
    const db = await this.database()
    const made = await makeLedgerCheckpoint(
      db,
      await usableSigner(
        db,
        sources,
        () => new Date(),
        (text) => this.warn(text),
      ),
    )
    if (flags.out === undefined) return this.show(noteView, made)
    const { writeFileAtomically } = await import('../../files.ts')
    await writeFileAtomically(flags.out, made.note)
    return this.show(writtenView, { ...made, out: flags.out, what: `a checkpoint of ${made.size} rows` })
  }
}
