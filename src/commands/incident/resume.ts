import { setTimeout as pause } from 'node:timers/promises'
import { Args, Flags } from '@oclif/core'
import { exit, TmsError } from '../../errors.ts'
import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class IncidentResume extends TmsCommand {
  static override summary = 'let the fleet work again, in steps of 10, 50 and 100 % of its slots'
  static override description =
    'Needs consent. The record comes first and the fence last; between the steps the fleet is watched. Where a soft degrade holds nothing back any more, there are no steps. Exit 1: it is not well, and stays at the step where it is. Exit 3: nothing shows whether it is well. Run again it goes on from there. Where the flag incident.resume.twoPersons is on, another super_admin approves first.'
  static override examples = ['<%= config.bin %> incident resume 7', '<%= config.bin %> incident resume 7 --approve']
  static override args = { id: Args.string({ required: true, description: 'the incident' }) }
  static override flags = {
    ...consentFlags,
    approve: Flags.boolean({ description: 'agree, as the second person; resumes nothing' }),
    why: Flags.string({ description: 'the reason, for the ledger', helpValue: '<reason>', default: 'resume' }),
    watch: Flags.string({ description: 'how long each step is watched', helpValue: '<30s>', default: '30s' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(IncidentResume)
    const [way, views, { numberOf }, { parseSeconds }, { pressPlace }, { tellReached }] = await Promise.all([
      import('../../incident/resume.ts'),
      import('../../incident/views.ts'),
      import('../../incident/incidents.ts'),
      import('../../duration.ts'),
      import('../../config/folders.ts'),
      import('../../incident/here.ts'),
    ])
    const id = numberOf(args.id)
    const watchMs = parseSeconds(flags.watch, { flag: '--watch', most: '7d' }) * 1000
    const db = await this.database()
    const now = await way.standing(db, id)
    const { target } = now
    way.mayResume(now, id)
    if (flags.approve) {
      await this.consent(now.names.approve, `agree that incident ${id} of ${target} is resumed`)
      await way.approveResume(db, id, flags.why)
      return this.show(views.approvedView, { id, target, by: 'you' })
    }
    // Before somebody consents: it may be why the fleet was halted.
    for (const other of now.others) this.warn(other)
    await this.consent(
      now.names.resume,
      `resume incident ${id} of ${target}: the fleet ${now.halted ? 'works again' : 'works at full strength again'}`,
    )
    const here = pressPlace(await this.settings(), process.env)
    let stands = ''
    const resuming = way.resumeIncident(db, {
      id,
      why: flags.why,
      watchMs,
      everyMs: 1000,
      now: () => performance.now(),
      pause: (ms) => pause(ms, undefined, { signal: this.signal }),
      report: (text) => this.note((stands = text)),
      stopFile: here.stopFile,
      relieve: () => tellReached(here),
    })
    const resumed = await resuming.catch((error: unknown) => {
      // The fleet works with what it has got back. Nothing heard: the database may have done it all the same.
      const brokenOff = this.signal.aborted || (error instanceof TmsError && error.exit === exit.outside)
      if (stands === '' && brokenOff) stands = 'Whether the fence is lifted: tms agents status.'
      if (stands !== '') this.warn(`It is left where it stands. ${stands} Go on with: tms incident resume ${id}`)
      throw error
    })
    const problem = way.stoppedProblem(resumed)
    if (problem !== null) return this.unknown(views.resumedView, resumed, problem)
    return resumed.stopped === null ? this.show(views.resumedView, resumed) : this.finding(views.resumedView, resumed)
  }
}
