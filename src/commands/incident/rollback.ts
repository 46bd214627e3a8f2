import { Flags } from '@oclif/core'
import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class IncidentRollback extends TmsCommand {
  static override summary = 'put the flags back to the last state that was green'
  static override description =
    'That is when the recorded posture was green for the last time; was it never, the newest state in which the required flags had their values, and it says so. Shows what changes, then needs consent: earlier values may start things again. A service account that holds this lever is not asked. Exit 1: there is no green state to go back to. 3: nothing on record says that any was green, and there is nothing to change.'
  static override examples = [
    '<%= config.bin %> incident rollback --why "errors since the last change"',
    '<%= config.bin %> incident rollback --to 2026-11-20T02:00:00Z',
  ]
  static override flags = {
    ...consentFlags,
    to: Flags.string({ description: 'the state of this time instead (UTC)', helpValue: '<time>' }),
    why: Flags.string({ description: 'the reason, for the ledger', helpValue: '<reason>', default: 'rollback' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(IncidentRollback)
    const [{ planRollback, rollbackUnknown, rollBack }, { rollbackPlanView, rolledBackView }] = await Promise.all([
      import('../../incident/levers.ts'),
      import('../../incident/views.ts'),
    ])
    const db = await this.database()
    const plan = await planRollback(db, flags.to)
    if (plan.moment === null) return this.finding(rollbackPlanView, plan)
    const problem = rollbackUnknown(plan)
    if (problem !== null) return this.unknown(rollbackPlanView, plan, problem)
    if (plan.changes.length === 0) return this.show(rollbackPlanView, plan)
    // Whoever consents has seen it, a program too.
    await this.line(rollbackPlanView, plan)
    if (!plan.unattended) await this.consent(plan.name, `roll back ${plan.changes.length} flags of ${plan.target}`)
    const { to, why } = flags
    return this.show(rolledBackView, await this.uncancellable(() => rollBack(db, plan, { to, why })))
  }
}
