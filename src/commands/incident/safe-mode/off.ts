import { createHash } from 'node:crypto'
import { Flags } from '@oclif/core'
import { consentFlags, TmsCommand } from '../../../ui/command.ts'

export default class IncidentSafeModeOff extends TmsCommand {
  static override summary = 'let people and agents write to guarded tables again'
  static override description =
    'Needs consent and the override token, from standard input or TMS_OVERRIDE_TOKEN: never as an argument.'
  static override examples = [
    '<%= config.bin %> incident safe-mode off --confirm db.example.com/tms@safe-mode < token.txt',
    'TMS_OVERRIDE_TOKEN=... <%= config.bin %> incident safe-mode off',
  ]
  static override flags = {
    ...consentFlags,
    why: Flags.string({
      description: 'the reason, for the ledger',
      helpValue: '<reason>',
      default: 'safe mode is over',
    }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(IncidentSafeModeOff)
    const [{ safeModeOff }, { safeModeView }] = await Promise.all([
      import('../../../incident/levers.ts'),
      import('../../../incident/views.ts'),
    ])
    const db = await this.database()
    await this.consent(`${db.target.consentName}@safe-mode`, `leave safe mode of ${db.target.name}`)
    const token = (process.env['TMS_OVERRIDE_TOKEN'] ?? (await this.input())).trim()
    if (token === '')
      throw this.usage('There is no override token.', 'It comes from standard input or TMS_OVERRIDE_TOKEN.')
    const hash = createHash('sha256').update(token).digest('hex')
    return this.show(safeModeView, await this.uncancellable(() => safeModeOff(db, hash, flags.why)))
  }
}
