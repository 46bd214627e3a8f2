import { Flags } from '@oclif/core'
import { TmsCommand } from '../../../ui/command.ts'

export default class EvidenceKeysGenerate extends TmsCommand {
  static override summary = 'make the key that signs evidence, and register its public half'
  static override description =
    'The first key, or the first after the last was revoked. Later ones come with `rotate`: the key in force introduces them. The private half stays on this machine.'
  static override examples = [
    '<%= config.bin %> evidence keys generate',
    '<%= config.bin %> evidence keys generate --register --days 365',
  ]
  static override flags = {
    register: Flags.boolean({ description: 'register the key that is there (file, variable or program), make none' }),
    days: Flags.integer({ description: 'it is valid for so many days', default: 400, min: 1, max: 1830 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(EvidenceKeysGenerate)
    const [{ generateKey }, { madeKeyView }, { signerSources }] = await Promise.all([
      import('../../../keys/keys.ts'),
      import('../../../keys/views.ts'),
      import('../../../config/signing.ts'),
    ])
    const sources = signerSources(await this.settings(), process.env)
    return this.show(madeKeyView, await generateKey(await this.database(), sources, flags))
  }
}
