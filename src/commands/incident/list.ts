import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class IncidentList extends TmsCommand {
  static override summary = 'incidents that are open, and how fast they are dealt with'
  static override examples = [
    '<%= config.bin %> incident list',
    '<%= config.bin %> incident list --all --limit 200 --json',
  ]
  static override flags = {
    tenant: Flags.string({ description: 'only this tenant', helpValue: '<key>' }),
    all: Flags.boolean({ description: 'those that are over, too' }),
    limit: Flags.integer({ description: 'at most so many', default: 50, min: 1, max: 1000 }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(IncidentList)
    const [{ listIncidents }, { incidentsView }, { stopFileOf }] = await Promise.all([
      import('../../incident/incidents.ts'),
      import('../../incident/views.ts'),
      import('../../config/folders.ts'),
    ])
    const stopFile = stopFileOf(await this.settings(), process.env)
    return this.show(incidentsView, await listIncidents(await this.database(), { ...flags, stopFile }))
  }
}
