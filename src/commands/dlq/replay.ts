import { Flags } from '@oclif/core'
import { setTimeout as pause } from 'node:timers/promises'
import type { ReplayPlan } from '../../dlq/dlq.ts'
import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class DlqReplay extends TmsCommand {
  static override summary = 'replay dead letters inside the rails; without --execute only shows what would be'
  static override description =
    'The dry run comes first, always. --execute needs consent that names the tenant and the plan, does exactly what that plan showed, and prints plan and result. With --wait, exit 1: it was stopped, or something failed again; 3: it has not ended yet.'
  static override examples = [
    '<%= config.bin %> dlq replay --tenant acme --class timeout',
    '<%= config.bin %> dlq replay --tenant acme --ids 17,18 --execute --why "carrier is up again" --confirm acme/1f2e3d4c5b6a',
    '<%= config.bin %> dlq replay --tenant acme --ids 17,18 --execute --why "carrier is up again" --wait 10m',
  ]
  static override flags = {
    ...consentFlags,
    tenant: Flags.string({ required: true, description: 'the tenant they are of', helpValue: '<key>' }),
    ids: Flags.string({
      description: 'only these dead letters',
      helpValue: '<id,id>',
      delimiter: ',',
      multiple: true,
      exclusive: ['class'],
    }),
    class: Flags.option({
      options: ['timeout', 'validation', 'external_api', 'quota_exceeded', 'policy', 'bug'] as const,
    })({ description: 'only that failed so' }),
    limit: Flags.integer({ description: 'at most so many', min: 1, max: 50 }),
    execute: Flags.boolean({ description: 'do it', dependsOn: ['why'] }),
    why: Flags.string({ description: 'the reason, for the ledger', helpValue: '<reason>' }),
    wait: Flags.string({
      description: 'follow it until it has ended, so long at most',
      helpValue: '<10m>',
      dependsOn: ['execute'],
    }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(DlqReplay)
    const [{ planReplay }, { dryRunView, planView }] = await Promise.all([
      import('../../dlq/dlq.ts'),
      import('../../dlq/views.ts'),
    ])
    const wait = await this.waiting(flags.wait)
    const plan = await planReplay(await this.database(), flags)
    if (!flags.execute) {
      if (plan.barred !== null) this.warn(`It may not be executed now: ${plan.barred}.`)
      return this.show(dryRunView, plan)
    }
    // One line before the envelope: whoever consents has seen it, a program too.
    await this.line(planView, plan)
    return this.replay(plan, flags.why ?? '', wait)
  }

  private async replay(plan: ReplayPlan, why: string, waitMs: number | null): Promise<void> {
    const { checkReplayable, executeReplay, followReplay, replayWorked } = await import('../../dlq/dlq.ts')
    const { outcomeText, startedView } = await import('../../dlq/views.ts')
    checkReplayable(plan)
    await this.consent(plan.name, `replay ${plan.items.length} dead letters of ${plan.tenant}`)
    const db = await this.database()
    const started = await this.uncancellable(() => executeReplay(db, plan, why))
    if (waitMs === null) return this.show(startedView, started)
    const progress = await this.progress(`Replay ${started.run} is under way.`)
    const outcome = await followReplay(db, started, {
      now: () => performance.now(),
      pause: (ms) => pause(ms, undefined, { signal: this.signal }),
      forMs: waitMs,
      report: (run) => progress.update(`Replay ${run.run}: ${outcomeText(run)}`),
    })
    progress.done()
    const worked = replayWorked(outcome)
    const ended = { ...started, outcome }
    if (worked === null) {
      return this.unknown(startedView, ended, {
        code: 'NO_DATA',
        what: `Replay ${started.run} has not ended yet.`,
        why: 'The time of --wait is over. The replay goes on by itself.',
        next: [`tms dlq stats --tenant ${plan.tenant}`, 'tms agents status'],
      })
    }
    return worked ? this.show(startedView, ended) : this.finding(startedView, ended)
  }

  private async waiting(span: string | undefined): Promise<number | null> {
    if (span === undefined) return null
    const { parseSeconds } = await import('../../duration.ts')
    return parseSeconds(span, { flag: '--wait', most: '7d' }) * 1000
  }
}
