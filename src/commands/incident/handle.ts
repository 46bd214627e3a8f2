import { Args, Flags } from '@oclif/core'
import type { Alarm } from '../../incident/handle.ts'
import { ButtonCommand } from '../../ui/button-command.ts'
import { consentFlags } from '../../ui/command.ts'

type Taken = { readonly alarm: Alarm; readonly tenant: string | undefined }

export default class IncidentHandle extends ButtonCommand {
  static override summary = 'take an alarm as JSON: pull the lever it names, or open an incident of its level'
  static override description =
    "Type emergency_stop presses the button and soft_degrade lowers the limits, both without a question; rollback opens an incident of that level and puts the flags back, with consent; nothing else in such an alarm must be right. policies/incidents.yaml may map more types to a lever or a level. Anything else opens an incident of that level; alarms of one type join, and what they say is kept. With --tenant, or TMS_TENANT, the incident is that tenant's, and soft_degrade lowers what is that tenant's; the button and rollback are the whole fleet's all the same, and it says so. Exit 2 with an incident: that file is broken. 1 with an incident: there is no green state to roll back to; 3 with one: whether any was is not known, and there is nothing to change."
  static override examples = [
    `<%= config.bin %> incident handle '{"level":"critical","type":"emergency_stop","description":"System emergency"}'`,
    `<%= config.bin %> incident handle '{"level":"low","type":"slow_rates","description":"rates take 4 s"}' --json`,
    `<%= config.bin %> incident handle '{"level":"high","type":"payment_mismatch","description":"invoice 17 twice"}' --tenant acme`,
  ]
  static override args = {
    alarm: Args.string({ required: true, description: 'the alarm; - reads it from standard input' }),
  }
  static override flags = {
    ...consentFlags,
    tenant: Flags.string({ description: 'whose it is', helpValue: '<key>' }),
  }

  async run(): Promise<void> {
    // What is piped may never end: until then there is nothing to hold.
    const piped = this.argv.includes('-') ? await this.piped() : null
    const said = 'A halt can no longer be cancelled; it says in a moment what became of it.'
    const left = await this.uncancellable((late) => this.pressed(piped, late), said)
    if (left !== null) await this.handle(left.alarm, left.tenant)
  }

  private async piped(): Promise<string> {
    await this.parse(IncidentHandle)
    return this.input()
  }

  /** Presses the button if the alarm says so: then null, and all of it is done. From the first moment, as the button does. */
  private async pressed(piped: string | null, late: AbortSignal): Promise<Taken | null> {
    const { args, flags } = await this.parse(IncidentHandle)
    const [{ readAlarm, wholeFleet }, { readAlarmTypes }] = await Promise.all([
      import('../../incident/handle.ts'),
      import('../../incident/alarm-types.ts'),
    ])
    const policy = async () => readAlarmTypes(await this.policyFolders())
    const alarm = await readAlarm(piped ?? args.alarm, policy)
    const wider = wholeFleet(alarm, flags.tenant)
    if (wider !== null) this.warn(wider)
    if (alarm.lever !== 'emergency_stop') return { alarm, tenant: flags.tenant }
    await this.press(alarm.description, late)
    return null
  }

  private async handle(alarm: Alarm, tenant: string | undefined): Promise<void> {
    const views = await import('../../incident/views.ts')
    const db = await this.database()
    if (alarm.lever === 'rollback') return this.rollBack(alarm, tenant)
    if (alarm.lever === 'soft_degrade') {
      const { softDegrade } = await import('../../incident/levers.ts')
      const done = await this.uncancellable(() => softDegrade(db, { tenant, why: alarm.description }))
      return this.show(views.degradedView, done)
    }
    const { openIncident } = await import('../../incident/incidents.ts')
    const { priority, type, description: title, problem } = alarm
    const opened = await openIncident(db, { priority, type, title, key: type, tenant })
    return problem === null ? this.show(views.openedView, opened) : this.unknown(views.openedView, opened, problem)
  }

  private async rollBack({ priority, description: why }: Alarm, tenant: string | undefined): Promise<void> {
    const [{ planRollback, rollbackUnknown, rollBack, wantRollback }, views] = await Promise.all([
      import('../../incident/levers.ts'),
      import('../../incident/views.ts'),
    ])
    const db = await this.database()
    const { incident, joined } = await wantRollback(db, { priority, why })
    const plan = { ...(await planRollback(db, undefined, tenant)), incident: incident.id, joined }
    if (plan.moment === null) return this.finding(views.notRolledBackView, plan)
    const problem = rollbackUnknown(plan)
    if (problem !== null) return this.unknown(views.notRolledBackView, plan, problem)
    if (plan.changes.length === 0) return this.show(views.notRolledBackView, plan)
    await this.line(views.rollbackPlanView, plan)
    if (!plan.unattended) {
      this.warn(`Incident ${incident.id} is open until somebody decides.`)
      await this.consent(plan.name, `roll back ${plan.changes.length} flags of ${plan.target}`)
    }
    return this.show(views.rolledBackView, await this.uncancellable(() => rollBack(db, plan, { to: undefined, why })))
  }
}
