import { TmsCommand } from '../../ui/command.ts'

export default class FlagsVerify extends TmsCommand {
  static override summary = 'check that every required flag has its value, for the environment and every tenant'
  static override description =
    'Exit 0: all agree. 1: some differ, each is listed. 3: it could not be read, or nothing is required.'
  static override examples = ['<%= config.bin %> flags verify', '<%= config.bin %> flags verify --json']

  async run(): Promise<void> {
    await this.parse(FlagsVerify)
    const [{ verifyFlags }, { verifyView }] = await Promise.all([
      import('../../flags/flags.ts'),
      import('../../flags/views.ts'),
    ])
    const verdict = await verifyFlags(await this.database())
    if (verdict.required === 0) {
      return this.unknown(verifyView, verdict, {
        code: 'NO_DATA',
        what: 'No flag was checked.',
        why: 'The catalogue in this database requires no value.',
        next: ['tms db push'],
      })
    }
    return verdict.findings.length === 0 ? this.show(verifyView, verdict) : this.finding(verifyView, verdict)
  }
}
