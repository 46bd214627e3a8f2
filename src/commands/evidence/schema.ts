import { Args } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class EvidenceSchema extends TmsCommand {
  static override summary = 'print the JSON Schema of a file of a pack, or list them'
  static override description = 'A file names the version of its form in its field "type".'
  static override examples = [
    '<%= config.bin %> evidence schema',
    '<%= config.bin %> evidence schema slo_snapshot.json > slo_snapshot.schema.json',
  ]
  static override args = {
    file: Args.string({ description: 'name of the file, for instance flags.json; without it: all names' }),
  }

  async run(): Promise<void> {
    const { args } = await this.parse(EvidenceSchema)
    const [{ publishedNames, schemaOf }, { schemaView, schemasView }] = await Promise.all([
      import('../../evidence/schemas/published.ts'),
      import('../../evidence/views.ts'),
    ])
    if (args.file === undefined) return this.show(schemasView, publishedNames.map(schemaOf))
    return this.show(schemaView, schemaOf(args.file))
  }
}
