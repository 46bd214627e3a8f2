import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../../ui/command.ts'

export default class EvidenceKeysRevoke extends TmsCommand {
  static override summary = 'stop trusting a key from now on: it was lost, or somebody else may have it'
  static override description =
    'Asks nothing. It cannot be taken back: evidence is signed again once `generate` made a new first key, whose fingerprint auditors must be told.'
  static override examples = [
    '<%= config.bin %> evidence keys revoke 4f0c9a526c1e4d5a --why "laptop stolen"',
    '<%= config.bin %> evidence keys revoke 4f0c9a52 --why "the person who had it left" --json',
  ]
  static override args = {
    fingerprint: Args.string({ required: true, description: 'of the key; its first 8 digits or more' }),
  }
  static override flags = { why: Flags.string({ required: true, description: 'the reason, for the ledger' }) }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(EvidenceKeysRevoke)
    const [{ revokeKey }, { revokedKeyView }] = await Promise.all([
      import('../../../keys/keys.ts'),
      import('../../../keys/views.ts'),
    ])
    return this.show(revokedKeyView, await revokeKey(await this.database(), { ...args, why: flags.why }))
  }
}
