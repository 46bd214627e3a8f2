import { Args } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class IncidentCertify extends TmsCommand {
  static override summary = 'sign the certificates of an emergency stop that could not be signed then'
  static override description =
    'Signs the bytes that are kept; nothing in them changes. Safe to run again, and with another key it adds that signature.'
  static override examples = ['<%= config.bin %> incident certify 7', '<%= config.bin %> incident certify 7 --json']
  static override args = { id: Args.string({ required: true, description: 'the incident' }) }

  async run(): Promise<void> {
    const { args } = await this.parse(IncidentCertify)
    const [{ certifyLater }, { certifiedView }, { signerSources }, { openSigner }, { numberOf }] = await Promise.all([
      import('../../incident/certify.ts'),
      import('../../incident/views.ts'),
      import('../../config/signing.ts'),
      import('../../keys/open.ts'),
      import('../../incident/incidents.ts'),
    ])
    const settings = await this.settings()
    const signer = await openSigner(signerSources(settings, process.env))
    const folder = `${settings.values.artifacts}/incidents`
    const db = await this.database()
    return this.show(certifiedView, await certifyLater(db, numberOf(args.id), { signer, folder }))
  }
}
