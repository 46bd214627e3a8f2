import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'

/** How long to go on, in `performance.now()`: a clock that is set back must not make a call last for ever. */
export type Limits = {
  readonly deadline: number
  readonly signal?: AbortSignal | undefined
  /** What the server is told for this call alone. */
  readonly serverMs?: number | undefined
}

/** A person who types a command again asks for another change, under a new request id. */
export const mayHaveHappened = 'A change may have been made all the same: look before you ask for it again.'
/** Where changes can be seen. */
export const look = 'tms ledger tail'

export class TimeUp extends Error {
  override readonly name = 'TimeUp'
}

export function limitsFor(milliseconds: number, signal?: AbortSignal): Limits {
  return { deadline: performance.now() + milliseconds, signal }
}

export function timeLeft(limits: Limits): number {
  return limits.deadline - performance.now()
}

/** The work's outcome, or TimeUp, or the reason of the abort: whichever comes first. `abandon` ends what still runs. */
export async function bounded<T>(work: Promise<T>, limits: Limits, abandon: () => void): Promise<T> {
  const { signal } = limits
  return new Promise<T>((resolve, reject) => {
    const giveUp = (reason: unknown): void => {
      // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- whoever aborts chooses the reason
      reject(reason)
      abandon()
    }
    const onAbort = (): void => giveUp(signal?.reason)
    const timer = setTimeout(() => giveUp(new TimeUp()), Math.max(0, timeLeft(limits)))
    if (signal?.aborted) onAbort()
    else signal?.addEventListener('abort', onAbort, { once: true })
    work.then(resolve, reject).finally(() => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    })
  })
}

/**
 * Attempts until one works, one fails for good, or the time is up. `again` says how long to wait at least before the
 * next attempt, or undefined when there is no point. Full jitter: a restart cuts every client at the same moment.
 */
export async function persistently<T>(
  limits: Limits,
  again: (error: unknown) => number | undefined,
  attempt: () => Promise<T>,
): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return await attempt()
    } catch (error) {
      const least = again(error)
      if (least === undefined) throw error
      const wait = least + Math.random() * Math.min(2_000, 50 * 2 ** tries)
      if (wait >= timeLeft(limits)) throw error
      await pause(wait, undefined, limits.signal ? { signal: limits.signal } : {}).catch(() => undefined)
      limits.signal?.throwIfAborted()
    }
  }
}
