import { Args, Flags } from '@oclif/core'
import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class SecurityUnblock extends TmsCommand {
  static override summary = 'let a source in again before its time is over'
  static override description =
    'Needs consent. An address lifts what is shut out there, with and without a key; key@address and the name of a person lift one.'
  static override examples = [
    '<%= config.bin %> security unblock 203.0.113.9 --why "their retry loop is mended"',
    '<%= config.bin %> security unblock n8n-2026@203.0.113.9 --why "ticket 4711" --confirm n8n-2026@203.0.113.9',
  ]
  static override args = { source: Args.string({ required: true, description: 'as `tms security blocks` shows it' }) }
  static override flags = {
    ...consentFlags,
    why: Flags.string({ required: true, description: 'the reason, for the ledger', helpValue: '<reason>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(SecurityUnblock)
    const [{ unblock }, { unblockedView }] = await Promise.all([
      import('../../security/security.ts'),
      import('../../security/views.ts'),
    ])
    const db = await this.database()
    await this.consent(args.source, `let ${args.source} into ${db.target.name} again`)
    return this.show(unblockedView, await unblock(db, { source: args.source, why: flags.why }))
  }
}
