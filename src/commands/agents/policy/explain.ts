import { Args, Flags } from '@oclif/core'
import type { HeldAgent } from '../../../agents/policy/explain.ts'
import { TmsError } from '../../../errors.ts'
import { TmsCommand } from '../../../ui/command.ts'

export default class AgentsPolicyExplain extends TmsCommand {
  static override summary = 'tell whether an agent may run a function, and which line says so'
  static override description =
    'Exit 0: allowed, by the files and by the database. 1: denied. 3: the database could not be read; what the files say is shown. Without a configured database, or with --offline, only the files are asked.'
  static override examples = [
    '<%= config.bin %> agents policy explain rates rates.price_one',
    '<%= config.bin %> agents policy explain rates rates.price_one --offline',
  ]
  static override args = {
    agent: Args.string({ required: true, description: 'the agent' }),
    function: Args.string({ required: true, description: 'the function' }),
  }
  static override flags = { offline: Flags.boolean({ description: 'ask the files only' }) }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(AgentsPolicyExplain)
    const [{ readAgentPolicies }, { explain }, { explanationView }] = await Promise.all([
      import('../../../agents/policy/read.ts'),
      import('../../../agents/policy/explain.ts'),
      import('../../../agents/policy/views.ts'),
    ])
    const held = await this.held(args.agent, flags.offline)
    const read = await readAgentPolicies(await this.policyFolders())
    const unread = held instanceof TmsError ? `the database could not be read: ${held.message}` : held
    const explanation = explain(read, args.agent, args.function, unread)
    if (held instanceof TmsError) {
      const { code, message, why, next } = held
      return this.unknown(explanationView, explanation, { code, what: message, why, next })
    }
    return explanation.allowed ? this.show(explanationView, explanation) : this.finding(explanationView, explanation)
  }

  /** What the database holds; a text when it isn't asked; what went wrong when it doesn't answer. */
  private async held(agent: string, offline: boolean): Promise<HeldAgent | null | string | TmsError> {
    const { connection, file, values } = await this.settings({ create: true })
    if (offline) return 'not asked: --offline'
    const configured = file !== null || values.databaseUrl !== undefined || values.supabaseUrl !== undefined
    if (!configured) return 'not asked: no database is configured here'
    try {
      // Explaining must not be what creates a database.
      const [{ heldAgent }, { creatingNothing }] = await Promise.all([
        import('../../../agents/policy/explain.ts'),
        import('../../../config/connections.ts'),
      ])
      return await heldAgent(await this.openDatabase(creatingNothing(connection)), agent)
    } catch (error) {
      if (error instanceof TmsError) return error
      throw error
    }
  }
}
