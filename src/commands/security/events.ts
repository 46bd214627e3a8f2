import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class SecurityEvents extends TmsCommand {
  static override summary = 'list what was tried and refused, by minute and source'
  static override description =
    'Wrong signatures, repeated requests, denied roles, requests over a rate, and what came from sources that are shut out. Kept for 90 days.'
  static override examples = [
    '<%= config.bin %> security events',
    '<%= config.bin %> security events --kind signature --minutes 1440 --json',
  ]
  static override flags = {
    tenant: Flags.string({ description: 'only of this tenant', helpValue: '<key>' }),
    kind: Flags.option({
      options: ['signature', 'nonce', 'role', 'rate', 'blocked', 'identity', 'token'] as const,
    })({ description: 'only of this kind' }),
    minutes: Flags.integer({ description: 'of the last so many', default: 60, min: 1, max: 129_600 }),
    limit: Flags.integer({ description: 'the newest so many', default: 20, min: 1, max: 1000 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(SecurityEvents)
    const [{ listEvents }, { eventsView }] = await Promise.all([
      import('../../security/security.ts'),
      import('../../security/views.ts'),
    ])
    const { tenant, kind, minutes, limit } = flags
    return this.show(eventsView, await listEvents(await this.database(), { tenant, kind, minutes, limit }))
  }
}
