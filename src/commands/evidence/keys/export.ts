import { Flags } from '@oclif/core'
import { TmsCommand } from '../../../ui/command.ts'

export default class EvidenceKeysExport extends TmsCommand {
  static override summary = 'print the public half of the key in force, as PEM'
  static override description =
    'Give it to whoever verifies, by another way than the packs. Nothing else is printed, so it can be redirected into a file.'
  static override examples = [
    '<%= config.bin %> evidence keys export > tms-evidence.pem',
    '<%= config.bin %> evidence keys export --fingerprint 4f0c9a526c1e4d5a',
    '<%= config.bin %> evidence keys export --all',
  ]
  static override flags = {
    fingerprint: Flags.string({ description: 'another key; its first 8 digits or more', exclusive: ['all'] }),
    all: Flags.boolean({ description: 'all of them, oldest first' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(EvidenceKeysExport)
    const [{ exportKeys }, { pemView }] = await Promise.all([
      import('../../../keys/keys.ts'),
      import('../../../keys/views.ts'),
    ])
    return this.show(pemView, await exportKeys(await this.database(), flags))
  }
}
