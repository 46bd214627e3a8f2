import { TmsCommand } from '../../../ui/command.ts'

export default class EvidenceKeysList extends TmsCommand {
  static override summary = 'list the keys that signed evidence, and whether this machine can sign'
  static override description =
    'Exit 1 when no key is in force, when it ends within 30 days, when this machine lacks it, or when others can read its private half.'
  static override examples = ['<%= config.bin %> evidence keys list', '<%= config.bin %> evidence keys list --json']

  async run(): Promise<void> {
    await this.parse(EvidenceKeysList)
    const [{ keysFinding, listKeys }, { keysView }, { signerSources }] = await Promise.all([
      import('../../../keys/keys.ts'),
      import('../../../keys/views.ts'),
      import('../../../config/signing.ts'),
    ])
    const list = await listKeys(await this.database(), signerSources(await this.settings(), process.env))
    return keysFinding(list) === null ? this.show(keysView, list) : this.finding(keysView, list)
  }
}
