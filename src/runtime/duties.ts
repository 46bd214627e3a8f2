import type { Logger } from '../redaction/logger.ts'

/** Something that must be done again and again while the product runs: sealing, probing, looking after incidents. */
export type Duty = {
  readonly name: string
  readonly everyMs: number
  /** True: there is more to do at once. */
  readonly run: (signal: AbortSignal) => Promise<boolean>
}

export type Duties = { stop(): Promise<void> }

/** How long a turn of more and more work may last before the others' ticks are looked at again. */
const mostTurns = 50

/**
 * Does each duty on its own beat, never two of the same at once. One that fails is tried again at its next beat and
 * keeps none of the others; it is logged when it begins to fail and when it works again, not each time.
 */
export function startDuties(duties: readonly Duty[], log: Logger): Duties {
  const over = new AbortController()
  const stopped = () => over.signal.aborted
  const running = new Set<Promise<void>>()
  const timers = duties.map((duty) => {
    let busy = false
    let failing = false
    const turn = async () => {
      for (let turns = 0; turns < mostTurns && !stopped(); turns++) {
        if (!(await duty.run(over.signal))) return
      }
    }
    const beat = async () => {
      if (busy || stopped()) return
      busy = true
      try {
        await turn()
        if (failing) log.info(`${duty.name}: works again`)
        failing = false
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error)
        if (!failing && !stopped()) log.warn(`${duty.name}: failed, and is tried again`, { error: why })
        failing = true
      } finally {
        busy = false
      }
    }
    const start = () => {
      const doing = beat().finally(() => running.delete(doing))
      running.add(doing)
    }
    start()
    return setInterval(start, duty.everyMs)
  })
  return {
    stop: async () => {
      over.abort()
      for (const timer of timers) clearInterval(timer)
      await Promise.all(running)
    },
  }
}
