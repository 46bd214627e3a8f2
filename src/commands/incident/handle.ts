import { Args } from '@oclif/core'
import type { Alarm } from '../../incident/handle.ts'
import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class IncidentHandle extends TmsCommand {
  static override summary = 'take an alarm as JSON: pull the lever it names, or open an incident of its level'
  static override description =
    'Type emergency_stop presses the button and soft_degrade lowers the limits, both without a question; rollback puts the flags back, with consent; nothing else in such an alarm is looked at but its description. policies/incidents.yaml may map more types to a lever or a level. Anything else opens an incident of that level; alarms of one type join. Exit 2 with an incident: that file is broken.'
  static override examples = [
    `<%= config.bin %> incident handle '{"level":"critical","type":"emergency_stop","description":"System emergency"}'`,
    `<%= config.bin %> incident handle '{"level":"low","type":"slow_rates","description":"rates take 4 s"}' --json`,
  ]
  static override args = {
    alarm: Args.string({ required: true, description: 'the alarm; - reads it from standard input' }),
  }
  static override flags = { ...consentFlags }

  async run(): Promise<void> {
    const { args } = await this.parse(IncidentHandle)
    const [{ readAlarm }, { readAlarmTypes }] = await Promise.all([
      import('../../incident/handle.ts'),
      import('../../incident/alarm-types.ts'),
    ])
    const policy = async () => readAlarmTypes(await this.policyFolders())
    const alarm = await readAlarm(args.alarm === '-' ? await this.input() : args.alarm, policy)
    const views = await import('../../incident/views.ts')
    if (alarm.lever === 'emergency_stop') return this.press(alarm.description)
    const db = await this.database()
    if (alarm.lever === 'rollback') return this.rollBack(alarm)
    if (alarm.lever === 'soft_degrade') {
      const { softDegrade } = await import('../../incident/levers.ts')
      return this.show(views.degradedView, await this.uncancellable(() => softDegrade(db, { why: alarm.description })))
    }
    const { openIncident } = await import('../../incident/incidents.ts')
    const { priority, type, description: title, problem } = alarm
    const opened = await openIncident(db, { priority, type, title, key: type })
    return problem === null ? this.show(views.openedView, opened) : this.unknown(views.openedView, opened, problem)
  }

  private async press(why: string): Promise<void> {
    const [{ pressHere }, { hurried }, { pressPlace }, { signerSources }, { notFenced }, { pressedView }, settings] =
      await Promise.all([
        import('../../incident/here.ts'),
        import('../../config/connections.ts'),
        import('../../config/folders.ts'),
        import('../../config/signing.ts'),
        import('../../incident/press.ts'),
        import('../../incident/views.ts'),
        this.settings(),
      ])
    const open = () => this.openDatabase(hurried(settings.connection))
    const here = {
      ...pressPlace(settings, process.env),
      signing: () => signerSources(settings, process.env),
      open,
      warn: (text: string) => void this.warn(text),
    }
    const pressed = await this.uncancellable(() => pressHere(here, why))
    const problem = notFenced(pressed)
    return problem === null ? this.show(pressedView, pressed) : this.unknown(pressedView, pressed, problem)
  }

  private async rollBack({ description: why }: Alarm): Promise<void> {
    const [{ planRollback, rollBack }, { rollbackPlanView, rolledBackView }] = await Promise.all([
      import('../../incident/levers.ts'),
      import('../../incident/views.ts'),
    ])
    const db = await this.database()
    const plan = await planRollback(db, undefined)
    if (plan.moment === null) return this.finding(rollbackPlanView, plan)
    if (plan.changes.length === 0) return this.show(rollbackPlanView, plan)
    await this.line(rollbackPlanView, plan)
    if (!plan.unattended) await this.consent(plan.name, `roll back ${plan.changes.length} flags of ${plan.target}`)
    return this.show(rolledBackView, await this.uncancellable(() => rollBack(db, plan, { to: undefined, why })))
  }
}
