import type { RandomHex } from './traceparent.ts'

export type TracingOptions = {
  readonly enabled: boolean
  /** Of traces that begin here, 0 to 100. What came with a task is respected, either way. */
  readonly samplePercent: number
  /** The collector: its base address or that of its traces. Null: nothing is recorded. */
  readonly endpoint: string | null
  readonly headers: Readonly<Record<string, string>>
  readonly serviceName: string
  readonly serviceVersion: string
  readonly environment: string
  /** Everything that is exported went through it. */
  readonly redact: (value: unknown) => unknown
  /** What one batch may take, with all its repetitions; also what `flush` and `stop` take at most. */
  readonly fetchTimeoutMs: number
  readonly limits?: QueueLimits
  readonly random?: RandomHex
}

export type QueueLimits = {
  /** Spans that wait at most. What comes then is dropped and counted. */
  readonly queue: number
  /** Spans of one request. */
  readonly batch: number
  /** How long a span waits for others. */
  readonly everyMs: number
}

/** Spans so far. `failed` were sent and not taken, `dropped` found the queue full or tracing stopped. */
export type Exported = { readonly spans: number; readonly failed: number; readonly dropped: number }
