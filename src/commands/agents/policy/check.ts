import { TmsCommand } from '../../../ui/command.ts'

export default class AgentsPolicyCheck extends TmsCommand {
  static override summary = "check the agents' policy files, every problem with its line"
  static override description =
    'Exit 0: all are in order. 2: some are not; each problem is listed, and its agent is denied. Needs no database.'
  static override examples = ['<%= config.bin %> agents policy check', '<%= config.bin %> agents policy check --json']

  async run(): Promise<void> {
    await this.parse(AgentsPolicyCheck)
    // Policies can be checked where there is no database yet.
    await this.settings({ create: true })
    const [{ policyProblem, readAgentPolicies }, { policyCheck, policyCheckView }] = await Promise.all([
      import('../../../agents/policy/read.ts'),
      import('../../../agents/policy/views.ts'),
    ])
    const read = await readAgentPolicies(await this.policyFolders())
    const problem = policyProblem(read)
    if (problem === null) return this.show(policyCheckView, policyCheck(read))
    return this.unknown(policyCheckView, policyCheck(read), problem)
  }
}
