import { setMaxListeners } from 'node:events'
import { exit, TmsError, type ExitCode } from '../errors.ts'

/** How SIGINT and SIGTERM reach a running command. */
export type Interruption = {
  /** Aborted by the first signal; every database call carries it. */
  readonly signal: AbortSignal
  /** The exit code the signal asks for, null while there was none. */
  exitCode(): ExitCode | null
  /** Rejects when the grace after the first signal is over and the work still goes on. */
  readonly graceOver: Promise<never>
  /**
   * While `work` runs, signals are noted and cancel nothing: what was sent can't be taken back. `late` is aborted when the
   * grace after the first of them is over, for what comes after the part that can't.
   */
  hold<T>(work: (late: AbortSignal) => Promise<T>, said?: string): Promise<T>
  /** Gives the work this long after the first signal, instead of three seconds. */
  allow(ms: number): void
  stop(): void
}

const usualGraceMs = 3_000
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

export function watchSignals(note: (text: string) => void): Interruption {
  const controller = new AbortController()
  // Every database call listens to it; Node takes more than ten at once for a leak and says so on stderr.
  setMaxListeners(0, controller.signal)
  let exitCode: ExitCode | null = null
  const held: { readonly said: string; readonly hurry: () => void }[] = []
  let graceMs = usualGraceMs
  let timer: NodeJS.Timeout | undefined
  let giveUp: (error: TmsError) => void = () => {}
  const graceOver = new Promise<never>((_, reject) => (giveUp = reject))
  // Nobody may be waiting for it yet, or any more.
  graceOver.catch(() => {})

  const onSignal = (name: NodeJS.Signals) => {
    const holding = held.at(-1)
    if (holding !== undefined) {
      note(`${holding.said}\n`)
      holding.hurry()
      return
    }
    // Twice means now: whatever is still open, the process ends. Its code is that of the first signal.
    if (exitCode !== null) process.exit(exitCode)
    exitCode = name === 'SIGINT' ? exit.interrupted : exit.terminated
    const error = interrupted(exitCode)
    controller.abort(error)
    timer = setTimeout(() => giveUp(error), graceMs)
  }
  for (const name of signals) process.on(name, onSignal)

  return {
    signal: controller.signal,
    exitCode: () => exitCode,
    graceOver,
    async hold(work, said = 'This step was sent and can no longer be cancelled; waiting for its answer.') {
      const late = new AbortController()
      setMaxListeners(0, late.signal)
      let ending: NodeJS.Timeout | undefined
      const holding = { said, hurry: () => (ending ??= setTimeout(() => late.abort(), graceMs)) }
      held.push(holding)
      try {
        return await work(late.signal)
      } finally {
        clearTimeout(ending)
        held.splice(held.lastIndexOf(holding), 1)
      }
    },
    allow(ms) {
      graceMs = ms
    },
    stop() {
      clearTimeout(timer)
      for (const name of signals) process.off(name, onSignal)
    },
  }
}

export function interrupted(
  code: ExitCode,
  { served = false, cause }: { served?: boolean; cause?: unknown } = {},
): TmsError {
  const terminated = code === exit.terminated
  return new TmsError(
    {
      code: terminated ? 'TERMINATED' : 'INTERRUPTED',
      what: served ? 'Stopped.' : terminated ? 'tms was told to stop.' : 'Interrupted.',
      why: served
        ? 'A signal asked for it.'
        : 'It was stopped before the work was done. What the database already took may still have been committed.',
      next: [],
    },
    { cause },
  )
}
