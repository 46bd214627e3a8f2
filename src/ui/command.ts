import { Command, Flags, type Interfaces } from '@oclif/core'
import { join } from 'node:path'
import type { Settings, SettingsRequest } from '../config/settings.ts'
import type { SqlFiles } from '../db/files.ts'
import type { Connection } from '../drivers/connection.ts'
import type { Driver } from '../drivers/driver.ts'
import { anyHelp, exit, TmsError, type ExitCode, type Problem } from '../errors.ts'
import { fileProblem } from '../files.ts'
import { commandLine, truthy, typedFlags, wantsJson } from './argv.ts'
import type { View } from './blocks.ts'
import { toJson, type Envelope } from './envelope.ts'
import { printableLines } from './escape.ts'
import { asTmsError, stackOf, withoutSecrets } from './failure.ts'
import { openOutput, type Output } from './output.ts'
import { startProgress, type Progress } from './progress.ts'
import type { ChoiceQuestion, TextQuestion } from './prompts.ts'
import { renderProblem } from './problem.ts'
import { redact } from './redact.ts'
import { interrupted, watchSignals, type Interruption } from './signals.ts'
import { lookAtTerminal, type Terminal } from './terminal.ts'
import { usageError } from './usage.ts'
import { flagVariable } from './variables.ts'
import { wrapLines } from './wrap.ts'

/** For commands that do what only a person may decide. It has no variable: consent is given once, for one thing. */
export const consentFlags = {
  confirm: Flags.string({ description: 'give consent by typing the name of what is affected', helpValue: '<name>' }),
}

/** For commands that ask questions. */
export const questionFlags = {
  yes: Flags.boolean({ char: 'y', description: 'take the default answers (never gives consent)' }),
}

/**
 * What all commands share: settings, the database, output for people and for programs, consent, questions, signals
 * and exit codes. A command parses its flags, makes one call into its topic, and shows one result.
 *
 * It replaces the life cycle of oclif's Command: there `--json` turns every exit code into 1, piped output is cut at
 * 64 KiB when a command fails, warnings are lost in JSON, and nothing is closed after a signal.
 */
export abstract class TmsCommand extends Command {
  static override baseFlags = {
    json: Flags.boolean({ description: 'print one JSON object', helpGroup: 'GLOBAL' }),
    profile: Flags.string({ description: 'named settings of the configuration file', helpGroup: 'GLOBAL' }),
    driver: Flags.option({ options: ['embedded', 'postgres', 'supabase'] as const satisfies Connection['driver'][] })({
      description: 'which kind of database',
      helpGroup: 'GLOBAL',
    }),
    config: Flags.string({
      description: 'configuration file (default: tms.config.yaml here or above)',
      helpValue: '<file>',
      helpGroup: 'GLOBAL',
    }),
    timeout: Flags.integer({
      description: 'give up on a database call after so many seconds',
      helpValue: '<seconds>',
      min: 1,
      max: 3600,
      helpGroup: 'GLOBAL',
    }),
    color: Flags.boolean({ description: 'use colours, or not', allowNo: true, helpGroup: 'GLOBAL' }),
  }

  private readonly output: Output = openOutput()
  private readonly interruption: Interruption = watchSignals((text) => this.output.note(text))
  private readonly json: boolean = wantsJson(this.argv, process.env)
  private readonly warnings: string[] = []
  private readonly open: Driver[] = []
  private terminal: Terminal = lookAtTerminal(process.env)
  private given: GivenFlags = {}
  private secrets: readonly string[] = []
  private resolved: Promise<Settings> | undefined
  private driver: Promise<Driver> | undefined
  private shown: { readonly data: unknown } | undefined
  private code: ExitCode = exit.done
  private failure: TmsError | undefined
  private outweighing: TmsError | undefined
  private working: Progress | undefined
  private kept: { readonly remove: () => Promise<void>; readonly where: string } | undefined
  /** Takes the rejections that nobody waits for; null: they end the command. */
  private stray: ((thrown: unknown) => void) | null = null
  /** What is done before an error that nobody caught ends the command. */
  private leave: ((thrown: unknown) => Promise<unknown>) | null = null
  /** It runs until it is stopped: then a signal is its end and no mishap. */
  private serves = false

  /** Aborted by the first Ctrl-C. Database calls carry it already; pass it to whatever else takes long. */
  protected get signal(): AbortSignal {
    return this.interruption.signal
  }

  // ---- results

  /** The result: rendered for people, or `data` of the envelope. Once per command. */
  protected async show<T>(view: View<T>, data: T): Promise<void> {
    if (this.shown) throw new Error(`${this.commandName} shows a second result`)
    this.shown = { data }
    if (!this.json) await this.print(view, data)
  }

  /** A result that answers "no": like `show`, exit code 1. */
  protected async finding<T>(view: View<T>, data: T): Promise<void> {
    this.code = exit.finding
    await this.show(view, data)
  }

  /** As much of a result as could be had, and why that isn't an answer: the problem's exit code (3, as a rule). */
  protected async unknown<T>(view: View<T>, data: T, problem: Problem): Promise<void> {
    await this.show(view, data)
    throw new TmsError(problem)
  }

  /**
   * For a secret that is shown once and kept somewhere until then: `remove` comes when standard output has taken the whole
   * result. Where it has not, `where` is said.
   */
  protected keptUntilShown(remove: () => Promise<void>, where: string): void {
    this.kept = { remove, where }
  }

  /** For a secret that is kept nowhere: said where standard output has not taken the whole result. */
  protected lostUnlessShown(said: string): void {
    this.kept = { remove: () => Promise.resolve(), where: said }
  }

  /** One element of a stream: rendered, or one line of JSON before the envelope. */
  protected async line<T>(view: View<T>, item: T): Promise<void> {
    if (this.json) this.output.data(`${toJson(item)}\n`)
    else await this.print(view, item)
    await this.output.room()
  }

  /** A stream that ends by itself, by a signal, or because nobody reads any more. */
  protected async stream<T>(view: View<T>, items: AsyncIterable<T>): Promise<void> {
    for await (const item of items) {
      await this.line(view, item)
      if (this.output.readerGone) return
    }
  }

  /** True once nobody reads stdout (`| head`): what only produces output may end; other work goes on. */
  protected get readerGone(): boolean {
    return this.output.readerGone
  }

  /** Something to know that changes no exit code. */
  override warn(input: Error | string): Error | string {
    const text = input instanceof Error ? input.message : input
    this.warnings.push(text)
    if (!this.json) this.output.note(`${wrapLines(`Warning: ${this.safe(text)}`, this.terminal.stderr.width)}\n`)
    return input
  }

  /** A word on stderr about what goes on; nothing a program should read. */
  protected note(text: string): void {
    if (!this.json) this.output.note(`${wrapLines(this.safe(text), this.terminal.stderr.width)}\n`)
  }

  /** A spinner on a terminal, a plain line elsewhere, nothing with --json. */
  protected async progress(text: string): Promise<Progress> {
    if (this.json) return { update() {}, done() {}, failed() {} }
    this.working = await startProgress(text, this.terminal.stderr, (line) => this.output.note(this.safe(line)))
    return this.working
  }

  /** What is wrong with the arguments beyond what their definitions say. Throw it. */
  protected usage(what: string, why: string): TmsError {
    return new TmsError({ code: 'USAGE', what, why, next: [`tms ${this.commandName} --help`] })
  }

  /** Standard input to its end, as text: for values given as `-` and for secrets, which are never arguments. */
  protected async input(): Promise<string> {
    const { readInput } = await import('./input.ts')
    return readInput(this.signal)
  }

  // ---- settings and database

  /** The settings, resolved once. Only `init` and `quickstart` ask for more than the default request. */
  protected settings(request: SettingsRequest = {}): Promise<Settings> {
    this.resolved ??= this.resolve(request)
    return this.resolved
  }

  /**
   * The database of the settings, opened once and closed when the command ends, however it ends. It must speak this
   * release's contract, or a neighbour's; `anyContract` is for the commands that find out about, or mend, the schema.
   */
  protected database({ anyContract = false }: { anyContract?: boolean } = {}): Promise<Driver> {
    this.driver ??= this.settings().then(async (settings) => {
      const driver = await this.openDatabase(settings.connection)
      if (anyContract) return driver
      const { checkContract } = await import('../db/schema.ts')
      const differs = await checkContract(driver)
      if (differs !== null) this.warn(differs)
      return driver
    })
    return this.driver
  }

  /** The SQL this installation ships. */
  protected async sqlFiles(): Promise<SqlFiles> {
    const { readSqlFiles } = await import('../db/files.ts')
    return readSqlFiles(join(this.config.root, 'sql'))
  }

  /** Where policy files are looked for: the project's own folder first, then what comes with tms. */
  protected async policyFolders(): Promise<readonly string[]> {
    const { values } = await this.settings()
    return [values.policies, join(this.config.root, 'policies')]
  }

  /** Runs until the first signal: for commands that serve, which then have `graceMs` to end well. */
  protected untilSignal(graceMs = 3000): Promise<void> {
    this.serves = true
    this.interruption.allow(graceMs)
    const { signal } = this.interruption
    if (signal.aborted) return Promise.resolve()
    // A timer keeps the process alive: an idle socket need not.
    return new Promise((resolve) => {
      const alive = setInterval(() => undefined, 60_000)
      signal.addEventListener('abort', () => {
        clearInterval(alive)
        resolve()
      })
    })
  }

  /** For services: what went wrong on the way counts more than the signal that ended it, and so does its exit code. */
  protected outweighSignal(failure: TmsError): void {
    this.outweighing = failure
  }

  /** For commands that run other people's code: a promise that it lets fall is handed to `take`, and the work goes on. */
  protected takeStrays(take: (thrown: unknown) => void): void {
    this.stray = take
  }

  /** For commands that hold something which others wait for: handed back while the databases are still open, in `leaveMs`. */
  protected onCrash(leave: (thrown: unknown) => Promise<unknown>): void {
    this.leave = leave
  }

  /** For commands that choose their database themselves; closed when the command ends. */
  protected async openDatabase(connection: Connection): Promise<Driver> {
    const { openDriver } = await import('../drivers/open.ts')
    const driver = await unlessAborted(openDriver(connection), this.signal)
    this.open.push(driver)
    return interruptible(driver, this.signal)
  }

  // ---- people

  /**
   * Consent to `what`, given by the name of the thing it happens to: typed on a terminal, `--confirm` elsewhere.
   * `--yes` never gives it, and without a terminal nothing is asked.
   */
  protected async consent(name: string, what: string): Promise<void> {
    const rerun = commandLine(this.commandName, this.argv, ['--confirm', name])
    const missing = (why: string) =>
      new TmsError({ code: 'CONSENT_MISSING', what: `Consent is needed to ${what}.`, why, next: [rerun] })
    if (this.given.confirm !== undefined) {
      if (this.given.confirm === name) return
      throw missing(`--confirm names ${this.given.confirm}, and this is about ${name}.`)
    }
    if (this.json || !this.terminal.interactive) {
      throw missing(`Nobody can be asked here, so the name ${name} must be given with --confirm.`)
    }
    this.output.note(`About to ${this.safe(what)}.\n`)
    const { askText } = await import('./prompts.ts')
    const typed = await askText({ message: `Type ${this.safe(name)} to consent:` }, this.signal)
    if (typed === null) throw missing('The input ended before the name was typed. Nothing was done.')
    if (typed !== name) throw missing(`What was typed isn't ${name}. Nothing was done.`)
  }

  /**
   * Asks on a terminal; takes the default with --yes, with --json, in CI, and where nobody can answer. `flag` is what
   * answers instead.
   */
  protected async ask(question: TextQuestion & { readonly default: string; readonly flag: string }): Promise<string> {
    if (!this.asks) return question.default
    const { askText } = await import('./prompts.ts')
    return (await askText(question, this.signal)) ?? this.unanswered(question)
  }

  /** Like `ask`, from a list. */
  protected async choose<T extends string>(question: ChoiceQuestion<T> & { readonly flag: string }): Promise<T> {
    if (!this.asks) return question.default
    const { askChoice } = await import('./prompts.ts')
    return (await askChoice(question, this.signal)) ?? this.unanswered(question)
  }

  private unanswered({ message, flag }: { readonly message: string; readonly flag: string }): never {
    throw new TmsError({
      code: 'USAGE',
      what: `"${message}" was not answered: the input ended.`,
      why: `Nothing was done. Give ${flag}, or take the default with --yes.`,
      next: [commandLine(this.commandName, this.argv, ['--yes']), `tms ${this.commandName} --help`],
    })
  }

  /**
   * While `work` runs, Ctrl-C cancels nothing and says so: for what can't be taken back once it is sent. What `work` does
   * beside that ends when `late` is aborted, three seconds after the first Ctrl-C.
   */
  protected uncancellable<T>(work: (late: AbortSignal) => Promise<T>, said?: string): Promise<T> {
    return this.interruption.hold(work, said)
  }

  // ---- life cycle

  /** Runs the command to its end and tells the exit code. Nothing it wrote is lost when the process ends then. */
  async execute(): Promise<ExitCode> {
    const crash = watchCrashes(() => this.stray)
    const crashed = crash.happened.catch(async (thrown: unknown) => {
      await within(leaveMs, async () => this.leave?.(thrown))
      throw thrown
    })
    try {
      await Promise.race([this.run(), this.interruption.graceOver, crashed])
    } catch (thrown) {
      this.failure = asTmsError(thrown, commandLine(this.commandName, this.argv))
    }
    this.working?.failed()
    await this.closeDatabases()
    const signalled = this.interruption.exitCode()
    if (signalled !== null) {
      this.failure = this.outweighing ?? interrupted(signalled, { served: this.serves, cause: this.failure })
    }
    await this.report()
    this.interruption.stop()
    crash.stop()
    return this.failure?.exit ?? this.code
  }

  /** oclif's way in (`Command.run`). */
  protected override async _run<T>(): Promise<T> {
    process.exitCode = await this.execute()
    // True because nobody reads it: a command shows its result and returns nothing.
    return undefined as T
  }

  protected override async parse<
    F extends Record<string, unknown>,
    B extends Record<string, unknown>,
    A extends Record<string, unknown>,
  >(options?: Interfaces.Input<F, B, A>, argv = this.argv): Promise<Interfaces.ParserOutput<F, B, A>> {
    if (argv.some((word) => word.includes('\ufffd'))) {
      throw this.usage(
        'An argument is not UTF-8.',
        'It holds bytes that are no character, or U+FFFD, which stands for such bytes: what was meant is lost.',
      )
    }
    const opposed = opposedFlags({ ...options?.baseFlags, ...options?.flags }, typedFlags(argv))
    const input = {
      ...options,
      flags: withVariables(options?.flags, opposed),
      baseFlags: withVariables(options?.baseFlags, opposed),
    }
    const args: Interfaces.ArgInput = options?.args ?? {}
    for (const argument of Object.values(args)) {
      // Without this oclif reads stdin for an optional argument that isn't given.
      argument.ignoreStdin = true
    }
    let parsed: Interfaces.ParserOutput<F, B, A>
    try {
      // The cast is true because the copies have the flags of the original under the same names.
      parsed = await super.parse<F, B, A>(input as Interfaces.Input<F, B, A>, argv)
      // oclif leaves a boolean that isn't given undefined, against its own type.
      parsed.flags = { ...absentBooleans(input.flags), ...parsed.flags }
    } catch (thrown) {
      throw usageError(thrown, this.commandName, [...Object.keys(input.flags), ...Object.keys(input.baseFlags)])
    }
    // True because these are the flags of TmsCommand itself, parsed by their own definitions.
    this.given = parsed.flags as GivenFlags
    this.terminal = lookAtTerminal(process.env, this.given.color)
    return parsed
  }

  private get commandName(): string {
    return (this.id ?? '').replaceAll(':', ' ')
  }

  /** Whether questions may be asked at all. */
  private get asks(): boolean {
    return this.terminal.interactive && !this.json && this.given.yes !== true
  }

  private safe(text: string): string {
    return printableLines(redact(text, this.secrets))
  }

  private async print<T>(view: View<T>, data: T): Promise<void> {
    const { render } = await import('./render.ts')
    this.output.data(`${await render(view(data), this.terminal.stdout)}\n`)
  }

  private async resolve(request: SettingsRequest): Promise<Settings> {
    const { resolveSettings } = await import('../config/resolve.ts')
    const { profile, driver, config, timeout } = this.given
    const settings = await resolveSettings({
      folder: workingFolder(),
      environment: process.env,
      flags: { profile, driver, config, timeout },
      ...request,
    })
    this.secrets = settings.secrets
    for (const warning of settings.warnings) this.warn(warning)
    return settings
  }

  private async closeDatabases(): Promise<void> {
    // A server that hangs must not keep the command from ending.
    await within(2_000, () => Promise.allSettled(this.open.map(async (driver) => driver.close())))
  }

  private async report(): Promise<void> {
    const problem = this.failure && this.addressed(withoutSecrets(this.failure, this.secrets))
    if (this.failure && process.env.TMS_DEBUG === '1') this.output.note(`${this.safe(stackOf(this.failure))}\n`)
    if (this.json) this.output.data(`${toJson(this.envelope(problem))}\n`)
    else if (problem) this.output.note(await renderProblem(problem, this.terminal.stderr))
    try {
      await this.output.drained()
    } catch (thrown) {
      // stdout is a file on a full disk: the result isn't where it was wanted, and that must not look like success.
      this.failure = new TmsError(
        {
          code: fileProblem('standard output', thrown).code,
          what: 'The result could not be written to where standard output goes.',
          why: `${thrown instanceof Error ? thrown.message : String(thrown)}. What the command did before is done.`,
          next: ['df -h', 'tms status'],
        },
        { cause: thrown },
      )
      this.output.note(await renderProblem(withoutSecrets(this.failure, this.secrets), this.terminal.stderr))
    }
    await this.letGo()
  }

  private async letGo(): Promise<void> {
    if (!this.kept) return
    const arrived = this.shown && !this.failure && !this.output.readerGone
    const gone =
      arrived &&
      (await this.kept.remove().then(
        () => true,
        () => false,
      ))
    if (!gone) this.output.note(`${wrapLines(this.safe(this.kept.where), this.terminal.stderr.width)}\n`)
    await this.output.drained().catch(() => undefined)
  }

  /** Drivers know no commands: where they send a person to the help, it is this command's. */
  private addressed(problem: Problem): Problem {
    const own = `tms ${this.commandName} --help`
    return { ...problem, next: problem.next.map((command) => (command === anyHelp ? own : command)) }
  }

  private envelope(problem: Problem | undefined): Envelope {
    return {
      ok: !problem && this.code === exit.done,
      command: this.commandName,
      data: this.shown?.data ?? null,
      warnings: this.warnings.map((text) => redact(text, this.secrets)),
      error: problem ? { code: problem.code, message: problem.what, why: problem.why, next: problem.next } : null,
    }
  }
}

const leaveMs = 10_000

/** The flags the base itself reads; `confirm` and `yes` only where a command has them. */
type GivenFlags = {
  readonly profile?: string
  readonly driver?: Connection['driver']
  readonly config?: string
  readonly timeout?: number
  readonly color?: boolean
  readonly confirm?: string
  readonly yes?: boolean
}

/** Their variables are read together with the configuration file, which tells where each value came from. */
const resolvedWithSettings = new Set(['profile', 'driver', 'config', 'timeout'])

/** Copies of the flags with their variables set, which the manifest has for help and completion already. */
function withVariables(flags: Interfaces.FlagInput = {}, opposed: ReadonlySet<string>): Interfaces.FlagInput {
  return Object.fromEntries(
    Object.entries(flags).map(([name, flag]) => [name, opposed.has(name) ? flag : withVariable(name, flag)]),
  )
}

/** The flags that can't be given together with what was typed. What was typed wins, so their variables say nothing. */
function opposedFlags(flags: Interfaces.FlagInput, typed: ReadonlySet<string>): ReadonlySet<string> {
  return new Set(
    Object.entries(flags).flatMap(([name, { exclusive = [] }]) => {
      if (typed.has(name)) return exclusive
      return exclusive.some((other) => typed.has(other)) ? [name] : []
    }),
  )
}

function withVariable(name: string, flag: Interfaces.Flag<unknown>): Interfaces.Flag<unknown> {
  const variable = resolvedWithSettings.has(name) ? null : flagVariable(name)
  const value = variable === null ? undefined : process.env[variable]
  if (variable === null || !value) return flag
  if (flag.type === 'option') {
    // Given a variable oclif forgets the delimiter and hands out a text where the type says list.
    if (flag.multiple) return { ...flag, default: () => Promise.resolve(value.split(flag.delimiter ?? ',')) }
    return { ...flag, env: variable }
  }
  // oclif takes every value it doesn't know for false; a misspelled TMS_JSON=ture must not go unnoticed.
  const said = truthy(value)
  if (said === null) {
    throw new TmsError({
      code: 'USAGE',
      what: `The variable ${variable} is neither true nor false.`,
      why: `It stands for the flag --${name} and takes 1, true, yes, on or 0, false, no, off.`,
      next: [`unset ${variable}`],
    })
  }
  return { ...flag, default: said }
}

/** Connecting to a host that doesn't answer takes long and can't be called off: Ctrl-C stops waiting for it. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const giveUp = () => reject(interrupted(exit.interrupted))
    if (signal.aborted) giveUp()
    signal.addEventListener('abort', giveUp, { once: true })
    work.then(resolve, reject)
  })
}

/** Done when the work is, however it ended, and at the latest after so long. */
async function within(ms: number, work: () => Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)))
  await Promise.race([Promise.allSettled([work()]), late])
  clearTimeout(timer)
}

/** Errors thrown where nobody waits, by a socket or a timer: bugs, but with the same end as any other. */
function watchCrashes(stray: () => ((thrown: unknown) => void) | null) {
  let report: (thrown: unknown) => void = () => undefined
  const happened = new Promise<never>((_, reject) => (report = reject))
  happened.catch(() => undefined)
  const fallen = (thrown: unknown) => (stray() ?? report)(thrown)
  process.on('uncaughtException', report)
  process.on('unhandledRejection', fallen)
  return {
    happened,
    stop() {
      process.off('uncaughtException', report)
      process.off('unhandledRejection', fallen)
    },
  }
}

function absentBooleans(flags: Interfaces.FlagInput): Record<string, false> {
  const booleans = Object.entries(flags).filter(([, flag]) => flag.type === 'boolean')
  return Object.fromEntries(booleans.map(([name]) => [name, false]))
}

/** The driver with the command's signal in every call, so that no topic has to pass it on. */
function interruptible(driver: Driver, signal: AbortSignal): Driver {
  return {
    target: driver.target,
    call: (fn, args, options) =>
      driver.call(fn, args, {
        ...options,
        signal: options?.signal ? AbortSignal.any([signal, options.signal]) : signal,
      }),
    listen: (channel, onSignal) => driver.listen(channel, onSignal),
    close: () => driver.close(),
    ...(driver.administration ? { administration: driver.administration } : {}),
  }
}

function workingFolder(): string {
  try {
    return process.cwd()
  } catch (cause) {
    throw new TmsError(
      { code: 'CONFIG_MISSING', what: 'The current folder no longer exists.', why: 'It was deleted.', next: ['cd ~'] },
      { cause },
    )
  }
}
