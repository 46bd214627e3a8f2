import { TmsCommand } from '../../../ui/command.ts'

export default class AgentsPolicyLoad extends TmsCommand {
  static override summary = "put the agents' policy files into the database, in place of what it holds"
  static override description =
    'What no loaded policy allows is denied, so an agent whose file is broken or gone stops. Exit 2: some files are broken; the others are loaded.'
  static override examples = ['<%= config.bin %> agents policy load', '<%= config.bin %> agents policy load --json']

  async run(): Promise<void> {
    await this.parse(AgentsPolicyLoad)
    const [{ policyProblem, readAgentPolicies }, { loadAgentPolicies }, { policyLoadView }] = await Promise.all([
      import('../../../agents/policy/read.ts'),
      import('../../../agents/policy/load.ts'),
      import('../../../agents/policy/views.ts'),
    ])
    const read = await readAgentPolicies(await this.policyFolders())
    const db = await this.database()
    const done = { ...(await loadAgentPolicies(db, read)), target: db.target.name, problems: read.problems }
    const problem = policyProblem(read)
    return problem === null ? this.show(policyLoadView, done) : this.unknown(policyLoadView, done, problem)
  }
}
