import { randomBytes } from 'node:crypto'

/**
 * Where a task stands in its trace, as W3C Trace Context level 1 writes it. Every task passes through here, so nothing
 * of OpenTelemetry is imported.
 */
export type Traceparent = { readonly traceId: string; readonly spanId: string; readonly sampled: boolean }

/** So many random bytes, as lower-case hex. */
export type RandomHex = (bytes: number) => string

const shape = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/s
const zero = /^0+$/

/** Null when the text isn't valid: then a new trace begins, as the standard asks. Whatever sent it is not believed. */
export function parseTraceparent(text: string): Traceparent | null {
  const [, version, traceId, spanId, flags, more] = shape.exec(text) ?? []
  if (version === undefined || traceId === undefined || spanId === undefined || flags === undefined) return null
  if (version === 'ff' || zero.test(traceId) || zero.test(spanId)) return null
  // Version 00 ends here; a later one may go on, and its first four fields mean the same.
  if (version === '00' && more !== undefined) return null
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 }
}

/** Always version 00. Flags of later levels aren't passed on: what they promise was promised by somebody else. */
export function formatTraceparent({ traceId, spanId, sampled }: Traceparent): string {
  return `00-${traceId}-${spanId}-${sampled ? '01' : '00'}`
}

export function newTraceparent(random: RandomHex, sampled: boolean): Traceparent {
  return { traceId: identifier(random, 16), spanId: identifier(random, 8), sampled }
}

export function childOf(parent: Traceparent, random: RandomHex): Traceparent {
  return { traceId: parent.traceId, spanId: identifier(random, 8), sampled: parent.sampled }
}

/**
 * Whether a trace that begins here is kept. The answer hangs on the trace id alone, so all hosts decide alike, and a
 * higher percentage keeps what the lower one kept. The rule is OpenTelemetry's consistent one: the last 56 bits of the
 * id against a threshold, of which 52 fit a number exactly.
 */
export function sampledAt(traceId: string, percent: number): boolean {
  if (percent >= 100) return true
  if (percent <= 0) return false
  return Number.parseInt(traceId.slice(18, 31), 16) / 2 ** 52 >= 1 - percent / 100
}

/** From the system's generator, in gulps of 4 KB: asking it for each id, or writing each as hex, costs more than all else here. */
export function systemRandom(): RandomHex {
  let pool = ''
  let used = 0
  return (bytes) => {
    const end = used + 2 * bytes
    if (end > pool.length) {
      pool = randomBytes(4096).toString('hex')
      used = 2 * bytes
    } else used = end
    return pool.slice(used - 2 * bytes, used)
  }
}

/** All zeros means "no id", so a generator that draws them must not make one. */
function identifier(random: RandomHex, bytes: number): string {
  const drawn = random(bytes)
  return zero.test(drawn) ? `${drawn.slice(0, -1)}1` : drawn
}
