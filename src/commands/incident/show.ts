import { Args } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class IncidentShow extends TmsCommand {
  static override summary = 'one incident: what is known of it, and what happened'
  static override examples = ['<%= config.bin %> incident show 7', '<%= config.bin %> incident show 7 --json']
  static override args = { id: Args.string({ required: true, description: 'the incident' }) }

  async run(): Promise<void> {
    const { args } = await this.parse(IncidentShow)
    const [{ showIncident }, { incidentView }] = await Promise.all([
      import('../../incident/incidents.ts'),
      import('../../incident/views.ts'),
    ])
    return this.show(incidentView, await showIncident(await this.database(), args.id))
  }
}
