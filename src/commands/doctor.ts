import { TmsCommand } from '../ui/command.ts'

export default class Doctor extends TmsCommand {
  static override summary = 'check everything tms needs: ok, problem, and what to type'
  static override description = 'Exit 0: all ok. 1: a problem was found. 3: something could not be checked.'
  static override examples = ['<%= config.bin %> doctor', '<%= config.bin %> doctor --profile production --json']

  async run(): Promise<void> {
    await this.parse(Doctor)
    const [
      { diagnose, verdict },
      { doctorView },
      { readCatalogue },
      { readAlarmTypes },
      { signerSources },
      { stopFileOf },
    ] = await Promise.all([
      import('../setup/doctor.ts'),
      import('../setup/views.ts'),
      import('../flags/catalogue.ts'),
      import('../incident/alarm-types.ts'),
      import('../config/signing.ts'),
      import('../config/folders.ts'),
    ])
    const settings = await this.settings()
    const diagnosis = await diagnose({
      nodeVersion: process.version,
      open: () => this.database({ anyContract: true }),
      files: await this.sqlFiles(),
      catalogue: async () => readCatalogue(await this.policyFolders()),
      alarms: async () => readAlarmTypes(await this.policyFolders()),
      signing: signerSources(settings, process.env),
      configFile: settings.file,
      warnings: settings.warnings,
      now: () => new Date(),
      stopFile: stopFileOf(settings, process.env),
    })
    switch (verdict(diagnosis)) {
      case 'ok':
        return this.show(doctorView, diagnosis)
      case 'problem':
        return this.finding(doctorView, diagnosis)
      case 'unknown':
        return this.unknown(doctorView, diagnosis, {
          code: 'NO_DATA',
          what: 'Not everything could be checked.',
          why: 'A check that cannot run is not a pass.',
          next: ['look at the checks marked unknown'],
        })
    }
  }
}
