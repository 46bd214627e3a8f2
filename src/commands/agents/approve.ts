import { Args, Flags } from '@oclif/core'
import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class AgentsApprove extends TmsCommand {
  static override summary = 'let a finished task do what it asked leave for, or refuse it'
  static override description =
    'Approving does what the task stored; nothing is computed again. It needs consent that names the task. --reject never asks. Exit 1: approved, and it could not be done.'
  static override examples = [
    '<%= config.bin %> agents approve --list --tenant acme',
    '<%= config.bin %> agents approve 4711 --list --tenant acme',
    '<%= config.bin %> agents approve 4711 --tenant acme --why "price is right" --confirm 4711',
    '<%= config.bin %> agents approve 4711 --tenant acme --reject --why "too cheap"',
  ]
  static override args = { task: Args.string({ description: 'id of the task' }) }
  static override flags = {
    ...consentFlags,
    tenant: Flags.string({ description: 'the tenant of the task', helpValue: '<key>' }),
    list: Flags.boolean({ description: 'show what waits; with a task, all that it would do', exclusive: ['reject'] }),
    reject: Flags.boolean({ description: 'refuse it: the task has failed, nothing of it is done' }),
    why: Flags.string({ description: 'the reason, for the ledger', helpValue: '<reason>' }),
    limit: Flags.integer({ description: 'of --list: so many', default: 50, min: 1, max: 1000 }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(AgentsApprove)
    const [
      { decide, nothingDecided, taskToApprove, waitingTasks },
      { decidedView, purpose, waitingTaskView, waitingView },
    ] = await Promise.all([import('../../agents/runs.ts'), import('../../agents/views.ts')])
    if (flags.list && args.task === undefined)
      return this.show(waitingView, await waitingTasks(await this.database(), flags))
    const { task, tenant } = this.named(args.task, flags.tenant)
    const db = await this.database()
    if (flags.list) return this.show(waitingTaskView, { task, about: await taskToApprove(db, { task, tenant }) })
    const { why } = flags
    if (why === undefined) throw this.usage('--why is missing.', 'Every decision has a reason in the ledger.')
    if (!flags.reject) {
      const about = await taskToApprove(db, { task, tenant })
      await this.consent(task, `approve task ${task} of ${tenant}, which will ${purpose(about)}`)
    }
    const decided = await decide(db, { task, tenant, approve: !flags.reject, why })
    const problem = nothingDecided(decided)
    if (problem !== null) return this.unknown(decidedView, decided, problem)
    const done = flags.reject || decided.outcome === 'completed'
    return done ? this.show(decidedView, decided) : this.finding(decidedView, decided)
  }

  private named(task: string | undefined, tenant: string | undefined): { task: string; tenant: string } {
    if (task === undefined) throw this.usage('No task is named.', 'Give its id, or --list to see what waits.')
    if (tenant === undefined) throw this.usage('--tenant is missing.', 'A decision names the tenant it is made for.')
    return { task, tenant }
  }
}
