import { Flags } from '@oclif/core'
import { consentFlags, TmsCommand } from '../../../ui/command.ts'

export default class IncidentSafeModeRotateToken extends TmsCommand {
  static override summary = 'replace an override token that was lost; the new one is shown once'
  static override description =
    'Needs consent and the role super_admin. The old token ends at once. The database keeps the hash of the new one alone.'
  static override examples = [
    '<%= config.bin %> incident safe-mode rotate-token',
    '<%= config.bin %> incident safe-mode rotate-token --why "the old one is lost" --confirm db.example.com/tms@override-token',
  ]
  static override flags = {
    ...consentFlags,
    why: Flags.string({
      description: 'the reason, for the ledger',
      helpValue: '<reason>',
      default: 'the old one is lost',
    }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(IncidentSafeModeRotateToken)
    const settings = await this.settings()
    const [{ overrideTokenPath, rotateOverrideToken }, { rotatedTokenView }, { keysFolder, placeOf }] =
      await Promise.all([
        import('../../../setup/override-token.ts'),
        import('../../../setup/views.ts'),
        import('../../../config/folders.ts'),
      ])
    const db = await this.database()
    await this.consent(
      `${db.target.consentName}@override-token`,
      `replace the override token of ${db.target.name}: the old one ends at once`,
    )
    const file = overrideTokenPath(keysFolder(settings, process.env), placeOf(settings.connection))
    return this.show(rotatedTokenView, await this.uncancellable(() => rotateOverrideToken(db, file, flags.why)))
  }
}
