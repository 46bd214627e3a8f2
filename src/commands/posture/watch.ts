import { setTimeout as pause } from 'node:timers/promises'
import { Flags } from '@oclif/core'
import type { Tick } from '../../posture/watch.ts'
import { TmsCommand } from '../../ui/command.ts'

export default class PostureWatch extends TmsCommand {
  static override summary = 'look again and again: probe, judge, announce what changes'
  static override description =
    'A live screen on a terminal, a line for each look elsewhere. Records a probe and the posture; a change is announced through the outbox once, however many watch. With --act it draws the consequences of slo.yaml. Runs until Ctrl-C, or for --ticks; then exits as tms posture check would.'
  static override examples = [
    '<%= config.bin %> posture watch',
    '<%= config.bin %> posture watch --act --interval 30000 --ticks 1 --json',
  ]
  static override flags = {
    tenant: Flags.string({ description: 'only of this tenant; nothing is recorded then', helpValue: '<key>' }),
    window: Flags.string({ description: 'look back so far (default: the window of slo.yaml)', helpValue: '<24h>' }),
    interval: Flags.integer({
      description: 'milliseconds between two looks (default: MONITORING_INTERVAL, one minute)',
      min: 1000,
    }),
    ticks: Flags.integer({ description: 'end after so many looks', min: 1 }),
    act: Flags.boolean({
      description: 'throttle, freeze, quarantine, pause replay: as slo.yaml says',
      exclusive: ['tenant'],
    }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(PostureWatch)
    const [{ watchPosture }, { readSlo, windowSeconds }, views, { openScreen }, { lookAtTerminal }] = await Promise.all(
      [
        import('../../posture/watch.ts'),
        import('../../posture/slo.ts'),
        import('../../posture/views.ts'),
        import('../../ui/screen.ts'),
        import('../../ui/terminal.ts'),
      ],
    )
    const { values } = await this.settings()
    const ticks = watchPosture(await this.database(), {
      tenant: flags.tenant,
      windowSeconds: windowSeconds(flags.window),
      slo: await readSlo(await this.policyFolders()),
      sqlFiles: await this.sqlFiles(),
      act: flags.act,
      everyMs: flags.interval ?? values.monitoringIntervalMs,
      ticks: flags.ticks ?? null,
      signal: this.signal,
      pause: (ms) => pause(ms, undefined, { signal: this.signal }),
      reach: { doorUrl: values.doorUrl, fetch, now: () => performance.now() },
    })
    const { stdout } = lookAtTerminal(process.env, flags.color)
    const screen = openScreen(views.screenView, stdout)
    const draw = (tick: Tick) =>
      stdout.isTerminal && !flags.json ? screen.draw(tick) : this.line(views.tickLineView, tick)
    const looking = this.look(ticks, draw)
    if (flags.ticks === undefined) return Promise.race([looking, this.untilSignal()])
    return looking
  }

  private async look(ticks: AsyncIterable<Tick>, draw: (tick: Tick) => Promise<void>): Promise<void> {
    const [{ watchedView }, { postureUnknown }] = await Promise.all([
      import('../../posture/views.ts'),
      import('../../posture/posture.ts'),
    ])
    let last: Tick | undefined
    for await (const tick of ticks) {
      await draw(tick)
      last = tick
      if (this.readerGone) break
    }
    if (last === undefined) return
    const problem = last.posture === null ? last.problem : postureUnknown(last.posture)
    if (problem !== null) return this.unknown(watchedView, last, problem)
    return last.posture?.verdict === 'green' ? this.show(watchedView, last) : this.finding(watchedView, last)
  }
}
