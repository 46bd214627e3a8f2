import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class LedgerWitness extends TmsCommand {
  static override summary = 'countersign a checkpoint with a key of your own: "I saw this, now"'
  static override description =
    'Works without the database, on another machine, by somebody else: then a ledger that is rewritten later must also rewrite what the witness kept. With --store the line is put beside the checkpoint in the database.'
  static override examples = [
    '<%= config.bin %> ledger witness checkpoint.txt --key witness.pem --log-key key.pem --out witnessed.txt',
    '<%= config.bin %> ledger witness checkpoint.txt --key witness.pem --name auditor.example/2026 --store',
  ]
  static override args = { checkpoint: Args.string({ required: true, description: 'the file with the signed note' }) }
  static override flags = {
    key: Flags.string({ required: true, description: "the witness's private key, PEM", helpValue: '<file>' }),
    name: Flags.string({ description: "the witness's name (default: made from its key)", helpValue: '<name>' }),
    'log-key': Flags.string({ description: "first check the log's own signature with this key", helpValue: '<file>' }),
    store: Flags.boolean({ description: 'put the line into the database too' }),
    out: Flags.string({ description: 'write the note with its new line to this file', helpValue: '<file>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(LedgerWitness)
    const [
      { storeWitness, witnessCheckpoint },
      { readPrivateKey, readPublicKey, readText },
      { noteView, writtenView },
    ] = await Promise.all([
      import('../../ledger/checkpoint.ts'),
      import('../../ledger/files.ts'),
      import('../../ledger/views.ts'),
    ])
    const witnessed = await witnessCheckpoint({
      note: await readText(args.checkpoint),
      signer: await readPrivateKey(flags.key),
      name: flags.name,
      time: Math.floor(Date.now() / 1000),
      logKey: flags['log-key'] === undefined ? undefined : await readPublicKey(flags['log-key']),
    })
    if (flags.store) await storeWitness(await this.database(), witnessed)
    if (flags.out === undefined) return this.show(noteView, witnessed)
    const { writeFileAtomically } = await import('../../files.ts')
    await writeFileAtomically(flags.out, witnessed.note)
    return this.show(writtenView, {
      ...witnessed,
      out: flags.out,
      what: `the checkpoint, countersigned by ${witnessed.name},`,
    })
  }
}
