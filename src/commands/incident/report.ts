import { join, resolve } from 'node:path'
import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class IncidentReport extends TmsCommand {
  static override summary = 'write the draft of a postmortem, in Markdown'
  static override description =
    'Timeline, impact in tasks and money, what was tried, open questions. A file that is there is never written over.'
  static override examples = [
    '<%= config.bin %> incident report 7',
    '<%= config.bin %> incident report 7 --output postmortems/2026-11-20.md',
  ]
  static override args = { id: Args.string({ required: true, description: 'the incident' }) }
  static override flags = {
    output: Flags.string({
      description: "file (default: postmortem.md in the incident's folder)",
      helpValue: '<file>',
    }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(IncidentReport)
    const [{ writeReport }, { reportView }, { numberOf }] = await Promise.all([
      import('../../incident/report.ts'),
      import('../../incident/views.ts'),
      import('../../incident/incidents.ts'),
    ])
    const id = numberOf(args.id)
    const { values } = await this.settings()
    const file = flags.output ? resolve(flags.output) : join(values.artifacts, 'incidents', id, 'postmortem.md')
    return this.show(reportView, await writeReport(await this.database(), id, file))
  }
}
