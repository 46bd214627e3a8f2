import { Args, Flags } from '@oclif/core'
import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class FlagsRollout extends TmsCommand {
  static override summary = 'roll a value out in stages: canary, cohort, all; or take it back at once'
  static override description =
    'Without --start, --next or --off it shows where the rollout stands. Each stage waits, and needs consent while nothing measures its health. --off never asks.'
  static override examples = [
    '<%= config.bin %> flags rollout ops.replayEnabled --start true --canary acme --cohort early=10 --wait 24h --why "ticket 4711"',
    '<%= config.bin %> flags rollout ops.replayEnabled --next --why "canary is quiet" --confirm ops.replayEnabled@cohort',
    '<%= config.bin %> flags rollout ops.replayEnabled --off --why "errors at acme"',
  ]
  static override args = { flag: Args.string({ required: true, description: 'the flag' }) }
  static override flags = {
    ...consentFlags,
    start: Flags.string({
      description: 'begin: this value for the canary tenants',
      helpValue: '<value>',
      exclusive: ['next', 'off'],
      dependsOn: ['canary', 'cohort'],
    }),
    next: Flags.boolean({ description: 'go one stage on', exclusive: ['off'] }),
    off: Flags.boolean({ description: 'take it back from everybody' }),
    canary: Flags.string({
      description: 'the tenants that try it first',
      helpValue: '<key,key>',
      delimiter: ',',
      multiple: true,
      dependsOn: ['start'],
    }),
    cohort: Flags.string({
      description: 'the second stage: a name and a percentage',
      helpValue: '<name=percent>',
      dependsOn: ['start'],
    }),
    wait: Flags.string({
      description: 'how long each stage is watched at least',
      helpValue: '<24h>',
      dependsOn: ['start'],
    }),
    why: Flags.string({ description: 'the reason, for the history', helpValue: '<reason>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(FlagsRollout)
    const { start, next, off, why } = flags
    const [{ planNext, planOff, planStart, rolloutState, takeStep }, { rolloutView }] = await Promise.all([
      import('../../flags/rollout.ts'),
      import('../../flags/views.ts'),
    ])
    const db = await this.database()
    if (start === undefined && !next && !off) return this.show(rolloutView, await rolloutState(db, args.flag))
    if (why === undefined) throw this.usage('--why is missing.', 'Every change of a flag has a reason in its history.')
    const step = off
      ? planOff(args.flag)
      : next
        ? await planNext(db, args.flag)
        : await planStart(db, args.flag, {
            value: start ?? '',
            canary: flags.canary ?? [],
            cohort: flags.cohort ?? '',
            wait: flags.wait,
          })
    if (step.consent !== null) await this.consent(step.consent, `let ${step.key} enter stage ${step.stage}`)
    return this.show(rolloutView, await takeStep(db, step, why))
  }
}
