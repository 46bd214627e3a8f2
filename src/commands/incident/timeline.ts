import { Args } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class IncidentTimeline extends TmsCommand {
  static override summary = 'what happened to an incident, in order'
  static override examples = ['<%= config.bin %> incident timeline 7', '<%= config.bin %> incident timeline 7 --json']
  static override args = { id: Args.string({ required: true, description: 'the incident' }) }

  async run(): Promise<void> {
    const { args } = await this.parse(IncidentTimeline)
    const [{ showIncident }, { timelineView }] = await Promise.all([
      import('../../incident/incidents.ts'),
      import('../../incident/views.ts'),
    ])
    return this.show(timelineView, await showIncident(await this.database(), args.id))
  }
}
