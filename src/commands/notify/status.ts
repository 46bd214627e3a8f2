import { TmsCommand } from '../../ui/command.ts'

export default class NotifyStatus extends TmsCommand {
  static override summary = 'tell whether those who must hear of incidents do'
  static override description =
    'Exit 0: every target that takes incidents delivers. 1: one of them lost or delays what it should tell, there is none, or no worker is there to deliver. 3: nothing has arrived yet at one of them.'
  static override examples = ['<%= config.bin %> notify status', '<%= config.bin %> notify status --json']

  async run(): Promise<void> {
    await this.parse(NotifyStatus)
    const [{ notifyStatus, unknownStatus }, { statusView }] = await Promise.all([
      import('../../notify/notify.ts'),
      import('../../notify/views.ts'),
    ])
    const status = await notifyStatus(await this.database())
    const problem = unknownStatus(status)
    if (problem !== null) return this.unknown(statusView, status, problem)
    return status.verdict === 'ok' ? this.show(statusView, status) : this.finding(statusView, status)
  }
}
