import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Config, Help, type Command, type Interfaces } from '@oclif/core'
import { exit, TmsError, type ExitCode } from './errors.ts'
import { suggest } from './suggest.ts'
import { TmsCommand } from './ui/command.ts'
import { asTmsError, withoutSecrets } from './ui/failure.ts'
import { openOutput } from './ui/output.ts'
import { renderProblem } from './ui/problem.ts'
import { lookAtTerminal } from './ui/terminal.ts'
import { usageError } from './ui/usage.ts'

/** The whole of `tms`: finds the command in the arguments, runs it, ends the process with its exit code. */
export async function run(argv: readonly string[]): Promise<void> {
  try {
    process.exit(await dispatch(argv))
  } catch (thrown) {
    // Before there is a command there is no envelope either: an installation that lost its files, as a rule.
    const error = asTmsError(thrown, 'tms --help')
    process.stderr.write(await renderProblem(withoutSecrets(error, []), lookAtTerminal(process.env).stderr))
    process.exit(error.exit)
  }
}

async function dispatch(argv: readonly string[]): Promise<ExitCode> {
  const config = await loadConfig(argv)
  const { before, after, ...given } = split(argv)
  const [first, ...others] = given.words
  const words = first === 'help' ? others : given.words
  const flags = [...before, ...after]
  const asksHelp = first === 'help' || untilDashes(flags).some((word) => word === '--help' || word === '-h')

  const length = longestMatch(words, (id) => config.findCommand(id) !== undefined)
  const id = words.slice(0, length).join(':')
  if (length === 0) {
    const subject = words.join(':')
    const isSubject = subject === '' || config.findTopic(subject) !== undefined
    if (isSubject && (asksHelp || flags.length === 0)) return showHelp(config, subject)
    return new Refusal(argv, config, unknownCommand(words, config)).execute()
  }
  if (asksHelp) return showHelp(config, id)

  const rest = [...before, ...words.slice(length), ...after]
  const Class = tmsCommand(await config.findCommand(id, { must: true }).load())
  return Class ? new Class(rest, config).execute() : runPlugin(config, id, rest)
}

/** oclif's own `run` loads all plugins each time to know their commands, and every command loads the configuration again. */
async function loadConfig(argv: readonly string[]): Promise<Config> {
  const root = fileURLToPath(new URL('..', import.meta.url))
  // True because it is this package's own package.json.
  const pjson = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Interfaces.PJSON
  const core = argv[0] === 'autocomplete' ? ['@oclif/plugin-autocomplete'] : []
  return Config.load({ root, pjson, devPlugins: false, userPlugins: false, pluginAdditions: { core, path: root } })
}

/** Flags before the command (`tms --json status`), the words that may name it, and the rest. */
function split(argv: readonly string[]) {
  let start = 0
  while (argv[start]?.startsWith('-')) start += takesValue(argv[start]) ? 2 : 1
  let end = start
  while (end < argv.length && !argv[end]?.startsWith('-')) end++
  return { before: argv.slice(0, start), words: argv.slice(start, end), after: argv.slice(end) }
}

function takesValue(word = ''): boolean {
  const flags: Interfaces.FlagInput = TmsCommand.baseFlags
  return flags[word.replace(/^--/, '')]?.type === 'option'
}

function untilDashes(argv: readonly string[]): readonly string[] {
  return argv.includes('--') ? argv.slice(0, argv.indexOf('--')) : argv
}

function longestMatch(words: readonly string[], matches: (id: string) => boolean): number {
  for (let length = words.length; length > 0; length--) {
    if (matches(words.slice(0, length).join(':'))) return length
  }
  return 0
}

function unknownCommand(words: readonly string[], config: Config): TmsError {
  const topics = longestMatch(words, (id) => config.findTopic(id) !== undefined)
  const topic = words.slice(0, topics).join(' ')
  const help = topic ? `tms ${topic} --help` : 'tms --help'
  if (topics === words.length) {
    const what = topic ? `No command of ${topic} is given.` : 'No command is given.'
    return new TmsError({ code: 'USAGE', what, why: 'Flags alone say nothing.', next: [help] })
  }
  const typed = words.slice(0, topics + 1).join(' ')
  const known = [...config.commandIDs, ...config.topics.map(({ name }) => name)].map((id) => id.replaceAll(':', ' '))
  const meant = suggest(typed, known)
  return new TmsError({
    code: 'USAGE',
    what: `Unknown command: ${typed}`,
    why: meant
      ? `Did you mean ${meant}?`
      : topic
        ? `The topic ${topic} has no such command.`
        : 'There is no such topic.',
    next: meant ? [`tms ${meant}`, help] : [help],
  })
}

/** A command line that names no command ends as if it did: same envelope, same exit codes. */
class Refusal extends TmsCommand {
  private readonly refusal: TmsError

  constructor(argv: readonly string[], config: Config, error: TmsError) {
    super([...argv], config)
    this.refusal = error
  }

  run(): Promise<never> {
    return Promise.reject(this.refusal)
  }
}

class TmsHelp extends Help {
  protected override async showRootHelp(): Promise<void> {
    await super.showRootHelp()
    this.log(`  tms <topic> [<command>] --help   what it does, its flags and examples
  tms autocomplete                 completion of commands and flags in your shell

EXIT CODES
  0 done or yes · 1 the answer is no · 2 usage or configuration · 3 something outside failed or nothing is known
  4 refused: role, rail, fence or consent · 70 a bug in tms · 130, 143 interrupted
`)
  }
}

async function showHelp(config: Config, subject: string): Promise<ExitCode> {
  const output = openOutput()
  // Without docopts: a usage line with all twelve flags is longer than the table of flags below it.
  await new TmsHelp(config, { docopts: false }).showHelp(subject.split(':').filter(Boolean))
  await output.drained()
  return exit.done
}

async function runPlugin(config: Config, id: string, argv: string[]): Promise<ExitCode> {
  const output = openOutput()
  try {
    await config.runCommand(id, argv)
  } catch (thrown) {
    return new Refusal(argv, config, pluginProblem(thrown, id)).execute()
  }
  await output.drained()
  return exit.done
}

function pluginProblem(thrown: unknown, id: string): TmsError {
  if (!(thrown instanceof Error && 'syscall' in thrown)) return usageError(thrown, id.replaceAll(':', ' '), [])
  return new TmsError(
    {
      code: 'FILE_UNWRITABLE',
      what: `tms ${id} can't write its files.`,
      why: thrown.message,
      next: [`XDG_CACHE_HOME=<folder> tms ${id}`],
    },
    { cause: thrown },
  )
}

type TmsCommandClass = new (argv: string[], config: Config) => TmsCommand

/** Null for the commands of oclif's plugins. */
function tmsCommand(Class: Command.Class): TmsCommandClass | null {
  // True because a loaded command is never abstract, whatever oclif's type says.
  return Class.prototype instanceof TmsCommand ? (Class as unknown as TmsCommandClass) : null
}
