import { setTimeout as pause } from 'node:timers/promises'
import type { Channel, Driver, Signal, Unlisten } from './driver.ts'

/**
 * Listening where nothing can be pushed. The caller hears of changes made after this resolved; when the database could
 * not be asked for a while, of one change more, because nobody knows what was missed.
 */
export async function poll(
  call: Driver['call'],
  channel: Channel,
  everyMs: number,
  onSignal: (signal: Signal) => void,
): Promise<Unlisten> {
  const stop = new AbortController()
  const ask = async (after: string | null): Promise<{ cursor: string | null; signals: number }> => {
    const answer = await call('signals', { channel, after }, { signal: stop.signal })
    // Refused: this principal may not know. It may be allowed to later, so asking goes on.
    return 'refused' in answer ? { cursor: after, signals: 0 } : answer
  }
  let { cursor } = await ask(null)

  const loop = async (): Promise<void> => {
    let failures = 0
    while (!stop.signal.aborted) {
      // A driver that nobody waits for must not keep the process alive: unref.
      await pause(Math.min(everyMs * 2 ** failures, 30_000), undefined, { signal: stop.signal, ref: false })
      try {
        const { cursor: next, signals } = await ask(cursor)
        cursor = next
        if (signals > 0 || failures > 0) onSignal({ channel })
        failures = 0
      } catch {
        failures = Math.min(failures + 1, 10)
      }
    }
  }
  const ended = loop().catch(() => undefined)
  return async () => {
    stop.abort()
    await ended
  }
}
