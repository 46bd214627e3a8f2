import { TmsCommand } from '../../ui/command.ts'

export default class GuardCheck extends TmsCommand {
  static override summary = 'check that the guard of every guarded table stands, and can not be skipped'
  static override description =
    'Exit 0: everywhere. 1: somewhere not, each is listed. 3: no table is guarded, so nothing was checked.'
  static override examples = ['<%= config.bin %> guard check', '<%= config.bin %> guard check --json']

  async run(): Promise<void> {
    await this.parse(GuardCheck)
    const [{ guardedTables }, { guardView }] = await Promise.all([
      import('../../guard/guard.ts'),
      import('../../guard/views.ts'),
    ])
    const checked = await guardedTables(await this.database())
    if (checked.tables.length === 0) {
      return this.unknown(guardView, checked, {
        code: 'NO_DATA',
        what: 'No guard was checked.',
        why: 'No table is guarded in this database.',
        next: ['tms guard add <table>'],
      })
    }
    const stands = checked.tables.every(({ state }) => state === 'guarded')
    return stands ? this.show(guardView, checked) : this.finding(guardView, checked)
  }
}
