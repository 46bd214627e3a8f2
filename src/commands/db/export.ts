import { Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class DbExport extends TmsCommand {
  static override summary = 'write the schema as migration files for `supabase db push`'
  static override description = 'Only appends: files that are there already stay as they are. Needs no database.'
  static override examples = [
    '<%= config.bin %> db export --supabase',
    '<%= config.bin %> db export --supabase --folder ../app/supabase/migrations',
  ]
  static override flags = {
    supabase: Flags.boolean({ required: true, description: 'in the form of the Supabase command line' }),
    folder: Flags.string({ description: 'where to write', default: 'supabase/migrations', helpValue: '<folder>' }),
  }

  async run(): Promise<void> {
    const { flags } = await this.parse(DbExport)
    const [{ exportForSupabase }, { exportView }] = await Promise.all([
      import('../../db/export.ts'),
      import('../../db/views.ts'),
    ])
    return this.show(exportView, await exportForSupabase(await this.sqlFiles(), flags.folder, new Date()))
  }
}
