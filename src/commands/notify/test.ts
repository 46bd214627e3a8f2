import { randomBytes } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { Args } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class NotifyTest extends TmsCommand {
  static override summary = 'send one notification for real, and say what came back'
  static override description =
    'From this host, with its secrets, past the outbox. An alert of PagerDuty is ended at once. Exit 3: it did not arrive, no answer says whether it did, or its alert could not be ended.'
  static override examples = [
    '<%= config.bin %> notify test default-slack',
    '<%= config.bin %> notify test default-pagerduty --json',
  ]
  static override args = { target: Args.string({ required: true, description: 'its name in targets.yaml' }) }

  async run(): Promise<void> {
    const { args } = await this.parse(NotifyTest)
    const [{ testProblem, testTarget }, { testedView }, { hostSecrets }, { lookup }] = await Promise.all([
      import('../../notify/notify.ts'),
      import('../../notify/views.ts'),
      import('../../outbox/targets/secrets.ts'),
      import('../../outbox/targets/address.ts'),
    ])
    const { values } = await this.settings()
    const folder = join(values.artifacts, 'outbox')
    const db = await this.database()
    await mkdir(folder, { recursive: true })
    const tested = await testTarget(db, {
      target: args.target,
      secrets: hostSecrets(process.env, values.secretsFolder ?? null),
      host: hostname(),
      database: db.target.name,
      fetch: globalThis.fetch,
      lookup,
      clock: () => new Date(),
      random: randomBytes,
      folder,
      timeoutMs: 15_000,
      signal: this.signal,
      // Broken off, it still has to say which alert is left open.
      pause: (ms) => pause(ms, undefined, { signal: this.signal }).catch(() => undefined),
    })
    const problem = testProblem(tested)
    return problem === null ? this.show(testedView, tested) : this.unknown(testedView, tested, problem)
  }
}
