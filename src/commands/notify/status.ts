import { TmsCommand } from '../../ui/command.ts'

export default class NotifyStatus extends TmsCommand {
  static override summary = 'tell whether those who must hear of incidents do'
  static override description =
    'Exit 0: every target that takes incidents delivers. 1: one of them lost or delays what it should tell, or there is none.'
  static override examples = ['<%= config.bin %> notify status', '<%= config.bin %> notify status --json']

  async run(): Promise<void> {
    await this.parse(NotifyStatus)
    const [{ notifyStatus }, { statusView }] = await Promise.all([
      import('../../notify/notify.ts'),
      import('../../notify/views.ts'),
    ])
    const status = await notifyStatus(await this.database())
    return status.verdict === 'ok' ? this.show(statusView, status) : this.finding(statusView, status)
  }
}
