import { Args, Flags } from '@oclif/core'
import { join } from 'node:path'
import { TmsCommand } from '../../ui/command.ts'

export default class EvidenceVerify extends TmsCommand {
  static override summary = 'verify packs offline: files, signatures, keys, ledger, no missing day'
  static override description =
    'Opens no database. Exit 0: verified. 1: broken, each place named, or unanchored: no key from outside (--key), or no checkpoint from outside at or beyond the packs (--checkpoint). 3: something could not be read.'
  static override examples = [
    '<%= config.bin %> evidence verify artifacts/green-posture/2026-10-01 --key key.pem --allow-unanchored',
    '<%= config.bin %> evidence verify 2026-10-01..2026-10-31 --key key.pem --checkpoint kept.txt',
    '<%= config.bin %> evidence verify artifacts/green-posture --key key.pem --checkpoint kept.txt --proof proof.txt',
    '<%= config.bin %> evidence verify october.tar.gz --days 2026-10-01..2026-10-31 --key key.pem --checkpoint kept.txt --known-since 2026-11-01',
  ]
  static override args = {
    what: Args.string({ required: true, description: 'a folder, an archive, a day or a range of days' }),
  }
  static override flags = {
    key: Flags.string({ description: 'public key in PEM form, from outside the packs', helpValue: '<file>' }),
    checkpoint: Flags.string({ description: 'checkpoint (or pack) kept elsewhere', helpValue: '<file>' }),
    'known-since': Flags.string({
      description: 'since when you have that checkpoint: a smaller ledger after it was cut',
      helpValue: '<when>',
      dependsOn: ['checkpoint'],
    }),
    'witness-key': Flags.string({
      description: 'public key of a witness: since when it saw the checkpoint counts; may be given again',
      helpValue: '<file>',
      dependsOn: ['checkpoint'],
      multiple: true,
      multipleNonGreedy: true,
    }),
    proof: Flags.string({
      description: 'connects the checkpoint with the packs (tms ledger prove); may be given again',
      helpValue: '<file>',
      multiple: true,
      multipleNonGreedy: true,
      dependsOn: ['checkpoint'],
    }),
    days: Flags.string({ description: 'the days that must be in the folder or archive', helpValue: '<from..to>' }),
    'allow-unanchored': Flags.boolean({ description: 'unanchored is good enough: exit 0' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(EvidenceVerify)
    const [{ verifyFrom }, { verificationView }] = await Promise.all([
      import('../../evidence/verify-inputs.ts'),
      import('../../evidence/verify-views.ts'),
    ])
    const artifacts = () => this.artifacts()
    const found = await verifyFrom({
      ...flags,
      what: args.what,
      knownSince: flags['known-since'],
      witnessKey: flags['witness-key'],
      artifacts,
    })
    if (found.verdict === 'verified' || (found.verdict === 'unanchored' && flags['allow-unanchored'])) {
      return this.show(verificationView, found)
    }
    if (found.verdict !== 'unknown') return this.finding(verificationView, found)
    return this.unknown(verificationView, found, {
      code: 'NO_DATA',
      what: `Nothing can be said about ${args.what}.`,
      why: 'Something of it could not be read, or there is no day in it.',
      next: [`ls -la ${args.what}`, 'tms evidence list'],
    })
  }

  private async artifacts(): Promise<string> {
    const [{ settleEvidence }, { self }] = await Promise.all([
      import('../../evidence/prune.ts'),
      import('../../config/self.ts'),
    ])
    const root = join((await this.settings({ create: true })).values.artifacts, 'green-posture')
    await settleEvidence(root, self)
    return root
  }
}
