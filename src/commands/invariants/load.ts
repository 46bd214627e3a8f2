import { Flags } from '@oclif/core'
import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class InvariantsLoad extends TmsCommand {
  static override summary = 'put the invariants of the policy files into the database'
  static override description =
    'Their SQL becomes functions of roles that may do what the policy grants and nothing else: that needs a login that may create roles and grant on the tables. A connection through an API takes no SQL: run what --print shows in an SQL console. What the database holds and no file names any more is removed with consent; an empty or absent folder removes nothing. Exit 2: some files are broken; those invariants are unknown from now on, the others are loaded.'
  static override examples = [
    '<%= config.bin %> invariants load',
    '<%= config.bin %> invariants load --print > invariants.sql',
    '<%= config.bin %> invariants load --confirm db.example.com/tms@NO_NEGATIVE_STOCK',
  ]
  static override flags = {
    ...consentFlags,
    print: Flags.boolean({ description: 'show the SQL and do nothing' }),
    none: Flags.boolean({ description: 'the project has none of its own, and that is meant' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(InvariantsLoad)
    if (flags.print) await this.settings({ create: true })
    const [
      { invariantProblem, readInvariants },
      { invariantsToRemove, loadInvariants, loadScript, mayRemove },
      { loadView, scriptView },
    ] = await Promise.all([
      import('../../invariants/read.ts'),
      import('../../invariants/load.ts'),
      import('../../invariants/views.ts'),
    ])
    const read = await readInvariants(await this.policyFolders())
    if (flags.print) return this.show(scriptView, loadScript(read))
    const db = await this.database()
    const gone = await invariantsToRemove(db, read)
    mayRemove(read, gone, flags.none)
    if (gone.length > 0) {
      const names = gone.join(',')
      await this.consent(`${db.target.consentName}@${names}`, `remove from ${db.target.name}: ${names}`)
    }
    const done = { ...(await loadInvariants(db, read, gone)), target: db.target.name }
    const problem = invariantProblem(done.problems)
    return problem === null ? this.show(loadView, done) : this.unknown(loadView, done, problem)
  }
}
