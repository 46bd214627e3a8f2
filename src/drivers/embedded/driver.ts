import { chmodSync, existsSync, mkdirSync, statSync } from 'node:fs'
import { userInfo } from 'node:os'
import { dirname, isAbsolute, relative, resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { TmsError } from '../../errors.ts'
import { parseAnswer } from '../answer.ts'
import { argumentsText } from '../arguments.ts'
import type { EmbeddedConnection } from '../connection.ts'
import type { Contract, ContractFunction } from '../contract.ts'
import { isContractFunction } from '../contract.ts'
import { notAFunction } from '../database-error.ts'
import type {
  Administration,
  CallOptions,
  Channel,
  Driver,
  Refused,
  RunSql,
  Signal,
  Target,
  Unlisten,
} from '../driver.ts'
import { bounded, limitsFor, timeLeft, TimeUp, look, mayHaveHappened } from '../patience.ts'
import { attach, describeWait } from './attach.ts'
import { holdsDatabase, noDatabase } from './data-directory.ts'
import { longestRequest } from './lines.ts'
import type { Link } from './link.ts'
import { OwnerLost } from './owner-lost.ts'
import { fileProblem } from './problem.ts'

/** What only tests change. Nothing that a user, a socket or a configuration says reaches these. */
export type Internals = {
  readonly localUser?: string
  readonly workerFile?: string
  /** Where the snapshot is looked for. */
  readonly snapshotFolder?: string
}

/**
 * Opens a database directory: as its owner when nobody else is, else through the owner's socket. When that owner goes
 * away this process finds the next one or becomes it; callers notice only the time it takes.
 */
export async function openEmbedded(connection: EmbeddedConnection, internals: Internals = {}): Promise<Driver> {
  const directory = resolve(connection.directory)
  try {
    if (connection.create) createFolder(directory)
    else if (!holdsDatabase(directory)) throw noDatabase(connection.directory)
    actAsOwnerOf(directory)
    // The local user's identity rests on nobody else being able to enter.
    if ((statSync(directory).mode & 0o077) !== 0) chmodSync(directory, 0o700)
  } catch (error) {
    throw fileProblem(error, connection.directory)
  }
  const driver = new EmbeddedDriver(connection, directory, internals)
  await driver.open()
  return driver
}

/** Node's recursive mkdir reports a read-only file system as a missing folder, so a single step is tried first. */
function createFolder(directory: string): void {
  try {
    mkdirSync(directory, { recursive: !existsSync(dirname(directory)), mode: 0o700 })
  } catch (error) {
    if (!existsSync(directory)) throw error
  }
}

/**
 * Root in somebody's folder acts as that somebody: files that root left there would lock the folder's user out for good.
 */
function actAsOwnerOf(directory: string): void {
  if (process.geteuid?.() !== 0) return
  const { uid, gid } = statSync(directory)
  if (uid === 0) return
  process.setegid?.(gid)
  process.seteuid?.(uid)
}

class EmbeddedDriver implements Driver {
  readonly target: Target
  readonly administration: Administration
  readonly #connection: EmbeddedConnection
  readonly #directory: string
  readonly #internals: Internals
  readonly #listeners = new Map<Channel, Set<(signal: Signal) => void>>()
  #link: Promise<Link> | undefined
  /** Tells a link's end from the end of one that was already replaced. */
  #attempt = 0
  #closed = false

  constructor(connection: EmbeddedConnection, directory: string, internals: Internals) {
    this.#connection = connection
    this.#directory = directory
    this.#internals = internals
    this.target = { name: `embedded ${connection.directory}`, consentName: shortName(directory), shared: false }
    this.administration = { transaction: (work) => this.#administer(work) }
  }

  async open(): Promise<void> {
    await this.#attached()
  }

  async call<F extends ContractFunction>(
    fn: F,
    args: Contract[F]['args'],
    options: CallOptions = {},
  ): Promise<Contract[F]['result'] | Refused> {
    if (!isContractFunction(fn)) throw notAFunction(fn)
    options.signal?.throwIfAborted()
    if (Buffer.byteLength(argumentsText(fn, args)) > longestRequest - 1024) throw tooLong(fn)
    const limitMs = options.timeoutMs === undefined ? undefined : Math.max(1, Math.ceil(options.timeoutMs))
    const asked = this.#untilAnswered(fn, (link) => link.call(fn, args, this.#connection.account, limitMs))
    return parseAnswer(fn, await this.#inTime(fn, asked, options.signal))
  }

  async listen(channel: Channel, onSignal: (signal: Signal) => void): Promise<Unlisten> {
    // Wrapped, so that the same function given twice is two listeners.
    const listener = (signal: Signal) => onSignal(signal)
    const listeners = this.#listeners.get(channel) ?? new Set()
    this.#listeners.set(channel, listeners.add(listener))
    const unlisten: Unlisten = async () => {
      listeners.delete(listener)
      if (listeners.size === 0) this.#listeners.delete(channel)
    }
    const asked = this.#untilAnswered('listen', (link) => link.listen(channel))
    await this.#inTime('listen', asked).catch(async (error: unknown) => {
      await unlisten()
      throw error
    })
    return unlisten
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    const link = await this.#link?.catch(() => undefined)
    await link?.close()
  }

  async #administer<T>(work: (run: RunSql) => Promise<T>): Promise<T> {
    // Only an owner runs SQL. Most owners are short commands: they get the time of a call to end.
    const current = await this.#attached()
    const { transaction } = current.transaction ? current : await this.#attached(true)
    if (!transaction) throw new Error('an owner that has no administration')
    return transaction(work).catch((error: unknown) => {
      throw error instanceof OwnerLost ? closed() : error
    })
  }

  /** Asking again is safe: whatever changes something carries a request id. */
  async #untilAnswered<T>(what: string, ask: (link: Link) => Promise<T>): Promise<T> {
    const limits = limitsFor(this.#connection.callTimeoutMs)
    for (;;) {
      try {
        return await ask(await this.#attached())
      } catch (error) {
        if (!(error instanceof OwnerLost)) throw error
        if (timeLeft(limits) < 0) throw await this.#late(what)
        await wait(1)
      }
    }
  }

  async #inTime<T>(what: string, work: Promise<T>, signal?: AbortSignal): Promise<T> {
    try {
      return await bounded(work, limitsFor(this.#connection.callTimeoutMs, signal), () => undefined)
    } catch (error) {
      throw error instanceof TimeUp ? await this.#late(what) : error
    }
  }

  async #late(what: string): Promise<TmsError> {
    const owner = await describeWait(this.#directory).catch(() => undefined)
    return new TmsError({
      code: 'DB_TIMEOUT',
      what: `The embedded database gave no answer to ${what} within ${this.#connection.callTimeoutMs} ms.`,
      why: `${owner ? `${owner.what} ${owner.why}` : 'This work, or the work before it, takes longer.'} ${mayHaveHappened}`,
      next: [...(owner?.next ?? ['tms status', 'tms doctor']), look],
    })
  }

  /** The link in use, or a new one. With `mustOwn` a client's link is given up for the owner's. */
  async #attached(mustOwn = false): Promise<Link> {
    if (this.#closed) throw closed()
    const prior = this.#link
    if (prior && !mustOwn) return prior
    const attempt = (this.#attempt += 1)
    const link = this.#attach(attempt, prior, mustOwn)
    this.#link = link
    // An attempt that failed isn't kept: the next call makes its own.
    link.catch(() => this.#lost(attempt))
    return link
  }

  async #attach(attempt: number, prior: Promise<Link> | undefined, mustOwn: boolean): Promise<Link> {
    const before = await prior?.catch(() => undefined)
    if (before?.transaction) return before
    await before?.close()
    const options = {
      directory: this.#directory,
      create: this.#connection.create,
      callTimeoutMs: this.#connection.callTimeoutMs,
      localUser: this.#internals.localUser ?? localUser(),
      workerFile: this.#internals.workerFile,
      snapshotFolder: this.#internals.snapshotFolder,
      onSignal: (channel: Channel) => this.#signal(channel),
      onLost: () => this.#lost(attempt),
    }
    const link = await attach(options, mustOwn)
    for (const channel of this.#listeners.keys()) {
      await link.listen(channel)
      // Something may have been signalled while nobody here was listening.
      this.#signal(channel)
    }
    return link
  }

  #lost(attempt: number): void {
    if (attempt !== this.#attempt) return
    this.#link = undefined
    if (this.#listeners.size > 0) void this.#listenAgain()
  }

  /** Calls look for the next owner by themselves; who only listens has to be brought there. */
  async #listenAgain(): Promise<void> {
    await wait(relistenMs)
    if (this.#link === undefined && !this.#closed) await this.#attached().catch(() => undefined)
  }

  #signal(channel: Channel): void {
    for (const listener of this.#listeners.get(channel) ?? []) listener({ channel })
  }
}

/** Between attempts to find an owner to listen to. */
const relistenMs = 50

/** Short where that is clear: a path below the working directory is named from there. */
function shortName(directory: string): string {
  const fromHere = relative(process.cwd(), directory)
  return fromHere === '' || fromHere.startsWith('..') || isAbsolute(fromHere) ? directory : fromHere
}

function localUser(): string {
  try {
    return userInfo().username
  } catch {
    // A container may run as a number that no name belongs to.
    return `uid-${process.getuid?.() ?? 'unknown'}`
  }
}

function tooLong(fn: ContractFunction): TmsError {
  return new TmsError({
    code: 'INPUT_INVALID',
    what: `The arguments of ${fn} are longer than the embedded database takes.`,
    why: `The limit is ${longestRequest} bytes for one call.`,
    next: ['tms --help'],
  })
}

function closed(): TmsError {
  return new TmsError({
    code: 'DB_UNREACHABLE',
    what: 'The connection to the embedded database is closed.',
    why: 'The command is ending.',
    next: ['tms doctor'],
  })
}
