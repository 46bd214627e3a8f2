import { Flags } from '@oclif/core'
import { TmsCommand } from '../../../ui/command.ts'

export default class EvidenceKeysRotate extends TmsCommand {
  static override summary = 'replace the key in force by a new one, which it introduces'
  static override description =
    'Whoever trusts the old key can follow it to the new one. The old private half is removed once the new one is safe, unless it is kept. Where the private half is not a file of tms, make the new key there and name its public half.'
  static override examples = [
    '<%= config.bin %> evidence keys rotate',
    '<%= config.bin %> evidence keys rotate --keep --days 365',
    '<%= config.bin %> evidence keys rotate --to new-public.pem',
  ]
  static override flags = {
    keep: Flags.boolean({ description: 'keep the private half of the old key, for other databases that use it' }),
    to: Flags.string({ description: 'public half of the new key, in PEM', helpValue: '<file>' }),
    days: Flags.integer({ description: 'the new key is valid for so many days', default: 400, min: 1, max: 1830 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(EvidenceKeysRotate)
    const [{ readPem, rotateKey }, { madeKeyView }, { signerSources }] = await Promise.all([
      import('../../../keys/keys.ts'),
      import('../../../keys/views.ts'),
      import('../../../config/signing.ts'),
    ])
    const sources = signerSources(await this.settings(), process.env)
    const to = flags.to === undefined ? null : await readPem(flags.to)
    return this.show(madeKeyView, await rotateKey(await this.database(), sources, { ...flags, to }))
  }
}
