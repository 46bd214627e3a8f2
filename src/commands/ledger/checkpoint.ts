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
    const [{ makeLedgerCheckpoint, theSigner }, { noteView, writtenView }, { keysFolder }, { openSigner }] =
      await Promise.all([
        import('../../ledger/checkpoint.ts'),
        import('../../ledger/views.ts'),
        import('../../config/folders.ts'),
        import('../../keys/open.ts'),
      ])
    const folder = keysFolder(await this.settings(), process.env)
    const signer = theSigner(await openSigner({ keysFolder: folder, environment: process.env }))
    const made = await makeLedgerCheckpoint(await this.database(), signer)
    if (flags.out === undefined) return this.show(noteView, made)
    const { writeFileAtomically } = await import('../../files.ts')
    await writeFileAtomically(flags.out, made.note)
    return this.show(writtenView, { ...made, out: flags.out, what: `a checkpoint of ${made.size} rows` })
  }
}
