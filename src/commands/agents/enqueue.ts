import { Args, Flags } from '@oclif/core'
import { TmsCommand } from '../../ui/command.ts'

export default class AgentsEnqueue extends TmsCommand {
  static override summary = 'give the fleet a task; prints its id'
  static override examples = [
    `<%= config.bin %> agents enqueue rates.price_one --tenant acme --payload '{"load":"L1"}'`,
    '<%= config.bin %> agents enqueue rates.price_one --tenant acme --payload @load.json --key L1 --delay 30s',
    'cat load.json | <%= config.bin %> agents enqueue rates.price_one --tenant acme --payload - --priority high',
  ]
  static override args = {
    function: Args.string({ required: true, description: 'the function, as a policy names it' }),
  }
  static override flags = {
    tenant: Flags.string({ required: true, description: 'for this tenant', helpValue: '<key>' }),
    payload: Flags.string({
      description: 'JSON; @file reads it from a file, - from standard input (default: {})',
      helpValue: '<json|@file|->',
    }),
    key: Flags.string({ description: 'the same key makes one task, however often it is given', helpValue: '<text>' }),
    delay: Flags.string({ description: 'not before so long from now', helpValue: '<30s>' }),
    priority: Flags.option({ options: ['low', 'normal', 'high'] as const, default: 'normal' as const })({
      description: "before or after the tenant's other tasks",
    }),
  }

  async run(): Promise<void> {
    const { args, flags } = await this.parse(AgentsEnqueue)
    const [{ enqueue }, { enqueuedView }] = await Promise.all([
      import('../../agents/runs.ts'),
      import('../../agents/views.ts'),
    ])
    const payload = await this.payload(flags.payload)
    return this.show(enqueuedView, await enqueue(await this.database(), { ...flags, function: args.function, payload }))
  }

  private async payload(given: string | undefined) {
    if (given === undefined) return undefined
    const { parsePayload, readPayloadFile } = await import('../../agents/runs.ts')
    if (given === '-') return parsePayload(await this.input(), 'from standard input')
    if (!given.startsWith('@')) return parsePayload(given, 'of --payload')
    return parsePayload(await readPayloadFile(given.slice(1)), `in ${given.slice(1)}`)
  }
}
