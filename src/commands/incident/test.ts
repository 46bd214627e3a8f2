import { TmsCommand } from '../../ui/command.ts'

export default class IncidentTest extends TmsCommand {
  static override summary = 'walk the whole chain of an incident, in a tenant of its own'
  static override description =
    'Opens, joins, acknowledges, escalates, heals, degrades, resumes, resolves, closes, announces and reports in the tenant tms-incident-test, and tries the signing key. It touches no other tenant and halts nothing; targets that take incidents hear of it as a rehearsal, and no pager rings. Exit 1: a step failed. 4: you may not. 3: the database was lost on the way.'
  static override examples = ['<%= config.bin %> incident test', '<%= config.bin %> incident test --json']

  async run(): Promise<void> {
    await this.parse(IncidentTest)
    const [{ rehearse }, { rehearsalView }, { signerSources }, { openSigner }] = await Promise.all([
      import('../../incident/rehearse.ts'),
      import('../../incident/views.ts'),
      import('../../config/signing.ts'),
      import('../../keys/open.ts'),
    ])
    const settings = await this.settings()
    const signer = async () => openSigner(signerSources(settings, process.env))
    const walked = await rehearse(await this.database(), signer)
    if (walked.problem !== null) return this.unknown(rehearsalView, walked, walked.problem)
    return walked.steps.every(({ ok }) => ok) ? this.show(rehearsalView, walked) : this.finding(rehearsalView, walked)
  }
}
