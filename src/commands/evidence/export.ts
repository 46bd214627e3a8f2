import { Flags } from '@oclif/core'
import { join, resolve } from 'node:path'
import { TmsCommand } from '../../ui/command.ts'

export default class EvidenceExport extends TmsCommand {
  static override summary = 'pack a range of days into one archive, with a cover and how to check it'
  static override description =
    'Reads the artifacts folder and no database. The same packs give the same bytes. Refuses when a day is missing. Exit 1: written, and something in it is broken; the cover says what.'
  static override examples = [
    '<%= config.bin %> evidence export --from 2026-10-01 --to 2026-10-31',
    '<%= config.bin %> evidence export --from 2026-10-01 --to 2026-10-31 --format zip --out october.zip --key key.pem',
  ]
  static override flags = {
    from: Flags.string({ required: true, description: 'the first day', helpValue: '<day>' }),
    to: Flags.string({ required: true, description: 'the last day', helpValue: '<day>' }),
    format: Flags.option({ options: ['tar.gz', 'zip'] as const, default: 'tar.gz' as const })({
      description: 'kind of archive',
    }),
    out: Flags.string({ description: 'file to write (default: here, named after the days)', helpValue: '<file>' }),
    key: Flags.string({
      description: 'public key to check against (default: the one that signs here)',
      helpValue: '<file>',
    }),
    checkpoint: Flags.string({ description: 'checkpoint (or pack) kept elsewhere', helpValue: '<file>' }),
    'allow-gaps': Flags.boolean({ description: 'even if a day is missing; the cover says so' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(EvidenceExport)
    const [
      { archiveName, exportEvidence },
      { parseRange, readCheckpoint, readKeys },
      { exportView },
      { settleEvidence },
      { self },
      { namedDay },
    ] = await Promise.all([
      import('../../evidence/archive.ts'),
      import('../../evidence/verify-inputs.ts'),
      import('../../evidence/verify-views.ts'),
      import('../../evidence/prune.ts'),
      import('../../config/self.ts'),
      import('../../evidence/named-day.ts'),
    ])
    const now = new Date()
    const range = parseRange(`${namedDay(flags.from, now)}..${namedDay(flags.to, now)}`)
    const root = join((await this.settings({ create: true })).values.artifacts, 'green-posture')
    await settleEvidence(root, self)
    const exported = await exportEvidence({
      root,
      range,
      format: flags.format,
      out: resolve(flags.out ?? archiveName(range, flags.format)),
      keys: flags.key === undefined ? await this.ownKey() : await readKeys(flags.key),
      checkpoint: flags.checkpoint === undefined ? null : await readCheckpoint(flags.checkpoint, null),
      allowGaps: flags['allow-gaps'],
    })
    const broken = exported.found.verdict === 'broken' || exported.found.verdict === 'unknown'
    return broken ? this.finding(exportView, exported) : this.show(exportView, exported)
  }

  private async ownKey() {
    const [{ openSigner }, { signerSources }] = await Promise.all([
      import('../../keys/open.ts'),
      import('../../config/signing.ts'),
    ])
    const signer = await openSigner(signerSources(await this.settings(), process.env))
    return signer ? [signer] : []
  }
}
