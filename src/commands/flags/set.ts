import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class FlagsSet extends TmsCommand {
  static override summary = 'set a flag, for everybody, for the environment or for one tenant'
  static override examples = [
    '<%= config.bin %> flags set budget.agents.maxConcurrent 100 --why "new carrier goes live"',
    '<%= config.bin %> flags set ops.replayEnabled true --tenant acme --why "ticket 4711"',
    '<%= config.bin %> flags set ops.replayEnabled true --percentage 12.5 --canary acme,globex --why "first try"',
    '<%= config.bin %> flags set ops.replayEnabled --unset --why "back to the default"',
  ]
  static override args = {
    flag: Args.string({ required: true, description: 'the flag' }),
    value: Args.string({ description: 'its value; - reads it from standard input' }),
  }
  static override flags = {
    tenant: Flags.string({ description: 'for this tenant only', helpValue: '<key>', exclusive: ['for-environment'] }),
    'for-environment': Flags.boolean({ description: "for this database's environment, over the global value" }),
    percentage: Flags.string({
      description: 'for so many percent of the tenants',
      helpValue: '<0-100>',
      exclusive: ['tenant'],
    }),
    canary: Flags.string({
      description: 'for these tenants, whatever the percentage',
      helpValue: '<key,key>',
      delimiter: ',',
      multiple: true,
      exclusive: ['tenant'],
    }),
    unset: Flags.boolean({ description: 'take the setting away, so that the wider one applies' }),
    why: Flags.string({ required: true, description: 'the reason, for the history', helpValue: '<reason>' }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(FlagsSet)
    const text = await this.textOrUnset(args.value, flags.unset)
    const [{ setFlag }, { flagSetView }] = await Promise.all([
      import('../../flags/flags.ts'),
      import('../../flags/views.ts'),
    ])
    return this.show(
      flagSetView,
      await setFlag(await this.database(), { ...flags, environment: flags['for-environment'], key: args.flag, text }),
    )
  }

  /** Exactly one of a value and --unset. */
  private async textOrUnset(value: string | undefined, unset: boolean): Promise<string | null> {
    if ((value === undefined) !== unset)
      throw this.usage('Give a value, or --unset.', 'One of the two says what the flag becomes.')
    return value === '-' ? this.input() : (value ?? null)
  }
}
