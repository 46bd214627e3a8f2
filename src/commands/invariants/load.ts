import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class InvariantsLoad extends TmsCommand {
  static override summary = 'put the invariants of the policy files into the database, in place of what it holds'
  static override description =
    'Their SQL becomes functions of roles that may do what the policy grants and nothing else: that needs a login that may create roles and grant on the tables. A connection through an API takes no SQL: run what --print shows in an SQL console. Exit 2: some files are broken; those invariants are unknown from now on, the others are loaded.'
  static override examples = [
    '<%= config.bin %> invariants load',
    '<%= config.bin %> invariants load --print > invariants.sql',
  ]
  static override flags = { print: Flags.boolean({ description: 'show the SQL and do nothing' }) }

  async run(): Promise<void> {
    const { flags } = await this.parse(InvariantsLoad)
    if (flags.print) await this.settings({ create: true })
    const [{ invariantProblem, readInvariants }, { loadInvariants, loadScript }, { loadView, scriptView }] =
      await Promise.all([
        import('../../invariants/read.ts'),
        import('../../invariants/load.ts'),
        import('../../invariants/views.ts'),
      ])
    const read = await readInvariants(await this.policyFolders())
    if (flags.print) return this.show(scriptView, loadScript(read))
    const db = await this.database()
    const done = { ...(await loadInvariants(db, read)), target: db.target.name }
    const problem = invariantProblem(done.problems)
    return problem === null ? this.show(loadView, done) : this.unknown(loadView, done, problem)
  }
}
