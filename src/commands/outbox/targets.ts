import { Flags } from '@oclif/core'
import { consentFlags, TmsCommand } from '../../ui/command.ts'

export default class OutboxTargets extends TmsCommand {
  static override summary = 'check where the events of the outbox go, and put it into the database with --load'
  static override description =
    'Reads targets.yaml in the folder of the policies; SLACK_WEBHOOK_URL, PAGERDUTY_ROUTING_KEY and ALERT_WEBHOOK_URL stand for targets when none names them. Exit 2: it is wrong; each problem is listed with its line and nothing is loaded. A load that removes a target needs consent: what waits for it is not delivered.'
  static override examples = [
    '<%= config.bin %> outbox targets',
    '<%= config.bin %> outbox targets --load',
    '<%= config.bin %> outbox targets --load --confirm old-hook',
  ]
  static override flags = {
    ...consentFlags,
    load: Flags.boolean({ description: 'make these the targets of the database' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(OutboxTargets)
    // The file can be checked where there is no database yet.
    if (!flags.load) await this.settings({ create: true })
    const { loadTargets, readTargets, targetsProblem, targetsToRemove, targetsView } =
      await import('../../outbox/targets-file.ts')
    const { withDefaults } = await import('../../outbox/defaults.ts')
    const read = withDefaults(await readTargets(await this.policyFolders()), process.env)
    const problem = targetsProblem(read)
    if (problem) return this.unknown(targetsView, { ...read, loaded: null }, problem)
    if (!flags.load) return this.show(targetsView, { ...read, loaded: null })

    const db = await this.database()
    if (read.path !== null || read.targets.length > 0) {
      const gone = await targetsToRemove(db, read)
      const names = gone.map(({ name, waiting }) => `${name} (${waiting} waiting)`)
      if (gone.length > 0) {
        await this.consent(gone.map(({ name }) => name).join(','), `remove from ${db.target.name}: ${names.join(', ')}`)
      }
    }
    const { removed } = await loadTargets(db, read)
    return this.show(targetsView, { ...read, loaded: { target: db.target.name, removed } })
  }
}
