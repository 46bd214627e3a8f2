import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class PostureCheck extends TmsCommand {
  static override summary = 'measure the system and judge it by policies/slo.yaml'
  static override description =
    'Flags, budgets, service levels, watch list, error-budget burn and the health score, each with its limit, samples, window and source. Changes nothing, but that rows which wait for the ledger are sealed first, where you may. Exit 0: green. 1: red. 3: unknown, because nothing was measured or the database could not be read; red comes before unknown.'
  static override examples = [
    '<%= config.bin %> posture check',
    '<%= config.bin %> posture check --tenant acme --window 1h --json',
  ]
  static override flags = {
    tenant: Flags.string({ description: 'only of this tenant', helpValue: '<key>' }),
    window: Flags.string({ description: 'look back so far (default: the window of slo.yaml)', helpValue: '<24h>' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(PostureCheck)
    const [{ posture, postureUnknown }, { readSlo, windowSeconds }, { postureView }] = await Promise.all([
      import('../../posture/posture.ts'),
      import('../../posture/slo.ts'),
      import('../../posture/views.ts'),
    ])
    const seconds = windowSeconds(flags.window)
    const slo = await readSlo(await this.policyFolders())
    const seen = await posture(await this.database(), {
      tenant: flags.tenant,
      windowSeconds: seconds,
      slo,
      sqlFiles: await this.sqlFiles(),
    })
    const problem = postureUnknown(seen)
    if (problem !== null) return this.unknown(postureView, seen, problem)
    return seen.verdict === 'green' ? this.show(postureView, seen) : this.finding(postureView, seen)
  }
}
