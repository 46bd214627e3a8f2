import { setImmediate as nextTick } from 'node:timers/promises'
import type { ServiceAccount } from '../connection.ts'
import type { ContractFunction } from '../contract.ts'
import type { Channel, RunSql } from '../driver.ts'
import { bounded, limitsFor, timeLeft } from '../patience.ts'
import { clearEmptyLock, dataDirectoryOf, holdsDatabase, noDatabase } from './data-directory.ts'
import { makeDatabase } from './database.ts'
import { OwnerLost } from './owner-lost.ts'
import { problemOf } from './problem.ts'
import type { Order, Thread } from './thread.ts'
import { startThread } from './thread.ts'

/** The database as its owner has it: a thread, replaced when it is lost, and a queue before it. */
export type Engine = {
  /** Calls may come before this; it only says how opening went. */
  readonly open: () => Promise<void>
  /** One transaction. Takes and gives JSON text. `limitMs`: its own limit, where that is sooner than the one for all calls. */
  readonly call: (fn: ContractFunction, args: string, as?: ServiceAccount, limitMs?: number) => Promise<string>
  readonly transaction: <T>(work: (run: RunSql) => Promise<T>) => Promise<T>
  readonly listen: (channel: Channel) => Promise<void>
  /**
   * Finishes what is queued for at most `graceMs`, spends about `tidyMs` on upkeep, and closes the database: when this
   * resolves nothing writes to the directory any more.
   */
  readonly close: (graceMs: number, tidyMs: number) => Promise<void>
  /** When the thread is gone, some 35 ms after a clean close. */
  readonly ended: () => Promise<void>
}

export type EngineOptions = {
  readonly directory: string
  /** Whether a database that isn't there is made. */
  readonly create: boolean
  readonly workerFile: string | undefined
  readonly snapshotFolder: string | undefined
  readonly localUser: string
  readonly callTimeoutMs: number
  readonly onSignal: (channel: Channel) => void
  /** Whether the directory is still the one that was opened. */
  readonly stillOwned: () => boolean
  /** It is not: nothing was written to what lies there now, and nothing will be. */
  readonly onAbandoned: () => void
}

/** Opening replays the log after a crash; measured 0.5 s. Making a database: 2.5 s. Only what hangs should meet it: 30 s did not do on a busy machine. */
const openTimeoutMs = 120_000
/** A migration may rewrite a table. */
const statementTimeoutMs = 300_000
/** A checkpoint or the vacuum of one table. */
const tidyStepTimeoutMs = 60_000
const closeTimeoutMs = 2_000
/** What goes before all that waits, and ends what doesn't come to an end by itself: stopping never waits for anybody's work. */
const urgent: ContractFunction = 'fence_halt'
const urgentGraceMs = 500
/** Between attempts to open again what could not be opened. */
const reopenMs = 1_000

type Obey = (order: Order, limitMs: number) => Promise<unknown>

export function createEngine(options: EngineOptions): Engine {
  let thread: Thread | undefined
  let opened: Promise<void> | undefined
  let queue: Promise<unknown> = Promise.resolve()
  let queued = 0
  let closing = false
  /** From here on the directory belongs to somebody else: nothing may open it again. */
  let gone = false
  const channels = new Set<Channel>()
  const first: ((current: Thread) => Promise<void>)[] = []
  /** At something that may be ended: opening is not, it would only begin again. */
  let busy: Thread | undefined

  function start(): Thread {
    return startThread(options.workerFile, { onSignal: options.onSignal, onTidyDue: tidy })
  }

  /**
   * PGlite opens its files by path. After the folder was deleted and made anew, or replaced by a backup, it would write
   * into the new one: seen, and that database never opened again. So each piece of work looks first.
   */
  async function abandonIfReplaced(): Promise<void> {
    if (gone || options.stillOwned()) return
    gone = true
    await thread?.end()
    options.onAbandoned()
  }

  /** The open thread: the first one, or a new one when the last was lost. */
  async function ready(): Promise<Thread> {
    if (gone) throw new OwnerLost()
    if (!thread || thread.ended) {
      const again = thread !== undefined
      thread = start()
      opened = open(thread, again)
    }
    await opened
    return thread
  }

  async function open(fresh: Thread, again: boolean): Promise<void> {
    const dataDirectory = dataDirectoryOf(options.directory)
    try {
      if (!holdsDatabase(options.directory)) {
        if (!options.create) throw noDatabase(options.directory)
        await makeDatabase(options.directory, {
          snapshotFolder: options.snapshotFolder,
          initialise: async (folder) => {
            await fresh.obey({ do: 'create', dataDirectory: folder }, openTimeoutMs)
          },
        })
      }
      clearEmptyLock(options.directory)
      await fresh.obey({ do: 'open', dataDirectory, localUser: options.localUser }, openTimeoutMs)
      for (const channel of channels) await fresh.obey({ do: 'listen', channel }, options.callTimeoutMs)
    } catch (error) {
      // Half open is not open: the next order tries again with a new thread.
      await fresh.end()
      throw error
    }
    // What was signalled in between is lost with the old thread.
    if (again) for (const channel of channels) options.onSignal(channel)
  }

  /** The database does one thing at a time, in the order of asking. */
  function inTurn<T>(what: string, work: (obey: Obey) => Promise<T>): Promise<T> {
    queued += 1
    const turn = queue.then(async () => {
      try {
        await abandonIfReplaced()
        const current = await readyForMore(what)
        busy = current
        return await work(obeying(current, what))
      } finally {
        busy = undefined
        queued -= 1
        // Whoever listens must not wait for somebody's call to have the database opened again.
        if (thread?.ended && channels.size > 0 && !closing) setTimeout(reopen, what === 'open' ? reopenMs : 0).unref()
      }
    })
    queue = turn.catch(() => undefined)
    return turn
  }

  /** The open thread, with nothing urgent left to do. */
  async function readyForMore(what: string): Promise<Thread> {
    for (;;) {
      const current = await ready().catch(asProblem(what))
      const next = first.shift()
      if (next === undefined) return current
      await next(current)
    }
  }

  function obeying(current: Thread, what: string): Obey {
    return (order, limitMs) => current.obey(order, limitMs).catch(asProblem(what))
  }

  /** Who is cut off by the end of this owner asks the next one again. */
  function asProblem(what: string): (error: unknown) => never {
    return (error) => {
      throw gone ? new OwnerLost() : problemOf(error, what)
    }
  }

  /** Before everything that waits; what is being done gets a moment to end. */
  async function urgently<T>(what: string, work: (obey: Obey) => Promise<T>): Promise<T> {
    const timer = setInterval(() => busy?.cut(`${what} does not wait for it`), urgentGraceMs)
    let turn: ((current: Thread) => Promise<void>) | undefined
    try {
      return await new Promise<T>((resolve, reject) => {
        turn = async (current) => {
          clearInterval(timer)
          await work(obeying(current, what)).then(resolve, reject)
        }
        first.push(turn)
        // A turn of its own, so that there is one: the work is done in that or in an earlier one.
        inTurn(what, async () => undefined).catch(reject)
      })
    } finally {
      clearInterval(timer)
      // Told that it failed, nobody expects it to be done by a later turn.
      if (turn !== undefined && first.includes(turn)) first.splice(first.indexOf(turn), 1)
    }
  }

  function reopen(): void {
    if (!closing) inTurn('open', async () => undefined).catch(() => undefined)
  }

  /** Steps of upkeep wait their turn like calls do; a step that leaves more to do asks for the next one by itself. */
  function tidy(): void {
    if (closing) return
    // A step that fails is due again later, and calls report the full disk that may be the reason.
    inTurn('tidy', (obey) => obey({ do: 'tidy' }, tidyStepTimeoutMs)).catch(() => undefined)
  }

  return {
    open: () => inTurn('open', async () => undefined),

    // The cast is true because the session's `call` gives text.
    call: (fn, args, as, limitMs = Infinity) =>
      (fn === urgent ? urgently : inTurn)(fn, async (obey) => {
        const limit = Math.min(limitMs, options.callTimeoutMs)
        return (await obey({ do: 'call', fn, args, as }, limit)) as string
      }),

    transaction: (work) =>
      inTurn('administration', async (obey) => {
        await obey({ do: 'begin' }, options.callTimeoutMs)
        let result
        try {
          result = await work(async (sql, parameters) => {
            // The cast is true because the session's `run` gives rows.
            return (await obey({ do: 'run', sql, parameters }, statementTimeoutMs)) as readonly Record<
              string,
              unknown
            >[]
          })
        } catch (error) {
          // The reason is the first error; when the thread is gone, so is the transaction.
          await obey({ do: 'end', outcome: 'rollback' }, statementTimeoutMs).catch(() => undefined)
          throw error
        }
        await obey({ do: 'end', outcome: 'commit' }, statementTimeoutMs)
        return result
      }),

    listen(channel) {
      if (channels.has(channel)) return Promise.resolve()
      channels.add(channel)
      return inTurn('listen', async (obey) => {
        await obey({ do: 'listen', channel }, options.callTimeoutMs)
      })
    },

    async close(graceMs, tidyMs) {
      closing = true
      // Calls that were made before may still be some promises away from the queue.
      await nextTick()
      const limits = limitsFor(graceMs)
      while (queued > 0 && timeLeft(limits) > 0) await bounded(queue, limits, () => undefined).catch(() => undefined)
      await abandonIfReplaced()
      if (gone) return
      gone = true
      if (thread && !(queued === 0 && (await closesCleanly(thread, tidyMs)))) await thread.end()
      // An opening that was cut off may still be writing its files.
      await opened?.catch(() => undefined)
    },

    ended: async () => {
      await thread?.end()
    },
  }
}

/**
 * A clean close takes 6 to 20 ms (a shutdown checkpoint, 11 fsyncs). Ending the thread at once takes none, but then the
 * next opening replays the log and syncs every file: 490 to 660 ms instead of 360.
 */
function closesCleanly(thread: Thread, tidyMs: number): Promise<boolean> {
  return thread.obey({ do: 'close', tidyMs }, closeTimeoutMs).then(
    () => true,
    () => false,
  )
}
