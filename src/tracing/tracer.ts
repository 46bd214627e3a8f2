import { TmsError } from '../errors.ts'
import type { Exported, QueueLimits, TracingOptions } from './options.ts'
import { Unrecorded, type TaskInfo, type Trace } from './trace.ts'
import { childOf, newTraceparent, parseTraceparent, sampledAt, systemRandom, type Traceparent } from './traceparent.ts'

/** Serialising 128 spans holds the event loop for 0.5 ms, with a stack trace on each for 2.5 ms. */
const usualLimits: QueueLimits = { queue: 2048, batch: 128, everyMs: 2000 }

export type Tracer = {
  /**
   * Runs the work in its place of the trace. Fails exactly when the work fails, with the same error: a collector that
   * is slow, dead or wrong changes nothing. A failed task that isn't sampled has no span: its run has trace id and
   * error, and sampling is raised while an incident is open.
   */
  task<T>(info: TaskInfo, work: (trace: Trace) => Promise<T>): Promise<T>
  setSampling(percent: number): void
  /** Sends what waits. Never rejects; gives up after `fetchTimeoutMs`. */
  flush(): Promise<void>
  /** The last flush. Work goes on without spans afterwards. */
  stop(): Promise<void>
  exported(): Exported
}

/** OpenTelemetry is loaded (about 100 ms) only when somebody will get the spans. */
export async function startTracing(options: TracingOptions): Promise<Tracer> {
  const random = options.random ?? systemRandom()
  let percent = checkedPercent(options.samplePercent)
  let stopped = false
  const recording =
    options.enabled && options.endpoint !== null
      ? (await import('./recording.ts')).startRecording({
          ...options,
          endpoint: options.endpoint,
          limits: options.limits ?? usualLimits,
          random,
        })
      : null

  /** Nobody would have a trace that begins here unrecorded, so it doesn't say that somebody has. */
  const root = (): Traceparent => {
    const fresh = newTraceparent(random, false)
    return recording !== null && !stopped && sampledAt(fresh.traceId, percent) ? { ...fresh, sampled: true } : fresh
  }

  return {
    task: async (info, work) => {
      const parent = info.traceparent === null ? null : parseTraceparent(info.traceparent)
      const own = parent === null ? root() : childOf(parent, random)
      if (recording === null || stopped || !own.sampled) return work(new Unrecorded(own))
      return recording.task(info, parent, own, work)
    },
    setSampling: (next) => {
      percent = checkedPercent(next)
    },
    flush: async () => recording?.flush(),
    stop: async () => {
      stopped = true
      await recording?.stop()
    },
    exported: () => recording?.exported() ?? { spans: 0, failed: 0, dropped: 0 },
  }
}

function checkedPercent(percent: number): number {
  if (percent >= 0 && percent <= 100) return percent
  throw new TmsError({
    code: 'INPUT_INVALID',
    what: `${percent} is no percentage of traces`,
    why: 'it lies between 0 and 100',
    next: ['use a number from 1 to 5, and up to 100 while an incident is open'],
  })
}
