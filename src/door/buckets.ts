/**
 * Token buckets in this process: a flood is turned away before it becomes a flood of database calls or of log lines. They
 * decide about strangers only. What a key or a tenant may is counted in the database, where all doors see it.
 */
export type Bucket = { readonly capacity: number; readonly perSecond: number }

export type Buckets = {
  /** Takes one; false: there is none. */
  take(key: string, nowMs: number): boolean
  /** Nothing for this one until it filled up again. */
  empty(key: string, nowMs: number): void
}

/** An attacker with many addresses must not fill the memory: the ones least recently seen are forgotten. */
const mostKeys = 10_000

export function createBuckets({ capacity, perSecond }: Bucket, most = mostKeys): Buckets {
  const levels = new Map<string, { readonly tokens: number; readonly at: number }>()
  const put = (key: string, tokens: number, at: number) => {
    levels.delete(key)
    levels.set(key, { tokens, at })
    const oldest = levels.keys().next()
    if (levels.size > most && oldest.done !== true) levels.delete(oldest.value)
  }
  const level = (key: string, nowMs: number): number => {
    const known = levels.get(key)
    if (!known) return capacity
    // A clock that goes back fills nothing.
    return Math.min(capacity, known.tokens + (Math.max(0, nowMs - known.at) / 1000) * perSecond)
  }
  return {
    take(key, nowMs) {
      const tokens = level(key, nowMs)
      put(key, tokens >= 1 ? tokens - 1 : tokens, nowMs)
      return tokens >= 1
    },
    empty(key, nowMs) {
      put(key, 0, nowMs)
    },
  }
}
