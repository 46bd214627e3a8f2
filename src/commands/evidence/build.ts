import { Flags } from '@oclif/core'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { TmsCommand } from '../../ui/command.ts'

export default class EvidenceBuild extends TmsCommand {
  static override summary = 'write the pack of a day: what happened, against which limits, signed'
  static override description =
    'Into the artifacts folder, green-posture/YYYY-MM-DD/. A day that is over gets its final pack, once: built again it has the same bytes, anywhere. Today gets a provisional revision. Safe to run twice, or twice at once. A red day is evidence too. Exit 0: green. 1: written, and red. 3: written, and unknown because too little was measured; or nothing could be read, and nothing was written.'
  static override examples = [
    '<%= config.bin %> evidence build',
    '<%= config.bin %> evidence build --date yesterday',
    '<%= config.bin %> evidence build --date 2026-10-31 --json',
  ]
  static override flags = {
    date: Flags.string({
      description: 'which day, in UTC: YYYY-MM-DD, today or yesterday',
      default: 'today',
      helpValue: '<day>',
    }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(EvidenceBuild)
    const [
      { buildPack, builtUnknown },
      { judgeDay },
      { builtView },
      { usableSigner },
      { signerSources },
      { readSlo },
      { self },
    ] = await Promise.all([
      import('../../evidence/build.ts'),
      import('../../evidence/judge.ts'),
      import('../../evidence/views.ts'),
      import('../../keys/keys.ts'),
      import('../../config/signing.ts'),
      import('../../posture/slo.ts'),
      import('../../config/self.ts'),
    ])
    const settings = await this.settings()
    const slo = await readSlo(await this.policyFolders())
    const driver = await this.database()
    const sqlFiles = await this.sqlFiles()
    const built = await buildPack({
      driver,
      root: join(settings.values.artifacts, 'green-posture'),
      self,
      day: flags.date,
      signer: () =>
        usableSigner(
          driver,
          signerSources(settings, process.env),
          () => new Date(),
          (text) => this.warn(text),
        ),
      judge: (facts) => judgeDay(driver, facts, { slo, sqlFiles }),
      traceLink: settings.values.traceLink ?? null,
      note: (text) => this.warn(text),
      pause: () => pause(50, undefined, { signal: this.signal }),
    })
    const problem = builtUnknown(built)
    if (problem !== null) return this.unknown(builtView, built, problem)
    return built.verdict === 'green' ? this.show(builtView, built) : this.finding(builtView, built)
  }
}
