/** Why an attempt ended before its answer. */
export type Cut = 'timeout' | 'stopped'

/**
 * Runs `work` until it is done, the time is up, or the worker stops. What ignores the signal is left behind, not waited
 * for. One controller per attempt, released at its end: `AbortSignal.any` on Node 20 keeps its sources' listeners.
 */
export async function withDeadline<T>(
  { signal, timeoutMs }: { readonly signal: AbortSignal; readonly timeoutMs: number },
  work: (signal: AbortSignal) => Promise<T>,
): Promise<{ readonly value: T } | { readonly cut: Cut }> {
  if (signal.aborted) return { cut: 'stopped' }
  const controller = new AbortController()
  let end: (cut: Cut) => void = () => undefined
  const ended = new Promise<{ cut: Cut }>((resolve) => {
    end = (cut) => {
      resolve({ cut })
      controller.abort()
    }
  })
  const stop = () => end('stopped')
  const timer = setTimeout(() => end('timeout'), timeoutMs)
  signal.addEventListener('abort', stop, { once: true })
  const working = work(controller.signal).then((value) => ({ value }))
  // When it was left behind, nobody is there to hear how it failed.
  working.catch(() => undefined)
  try {
    return await Promise.race([ended, working])
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', stop)
  }
}
