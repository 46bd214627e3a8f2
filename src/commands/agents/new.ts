import { dirname } from 'node:path'
import { Args } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class AgentsNew extends TmsCommand {
  static override summary = 'write a new agent with its policy and a test that passes'
  static override description =
    'agents/<name>.mjs, policies/agents/<name>.yaml and test/agents/<name>.test.mjs: all three or none. Overwrites nothing. Needs no database.'
  static override examples = ['<%= config.bin %> agents new rates', '<%= config.bin %> agents new load-matcher --json']
  static override args = { name: Args.string({ required: true, description: 'the name of the agent' }) }

  async run(): Promise<void> {
    const { args } = await this.parse(AgentsNew)
    const { file, values } = await this.settings({ create: true })
    const { scaffoldAgent, scaffoldView } = await import('../../agents/scaffold.ts')
    const [, ...shipped] = await this.policyFolders()
    const root = file === null ? process.cwd() : dirname(file)
    return this.show(
      scaffoldView,
      await scaffoldAgent({ name: args.name, root, policyFolders: [values.policies, ...shipped] }),
    )
  }
}
