import { formatTraceparent, type Traceparent } from './traceparent.ts'

/** What a piece of work sees of its trace, whether or not anybody records it. */
export type Trace = {
  /** To pass on: with follow-up tasks, outbox rows and the header `traceparent` of HTTP requests. */
  readonly traceparent: string
  /** To keep on the run. */
  readonly traceId: string
  /** Whether a collector is expected to have this trace. Links are only worth showing then. */
  readonly sampled: boolean
  /** A span below this one. Its work gets a trace of its own, to pass on from there. */
  span<T>(name: string, attributes: Attributes, work: (trace: Trace) => Promise<T>, kind?: SpanKind): Promise<T>
  /** Marks the span as failed though the work doesn't throw, as when the failure is handled. */
  fail(error: unknown): void
}

export type Attributes = Readonly<Record<string, string | number | boolean | readonly string[] | null | undefined>>

/** `client` is a request to another service, `producer` something left for another to pick up. */
export type SpanKind = 'internal' | 'client' | 'producer'

export type TaskInfo = {
  /** The span's name: `taskSpan`, unless it is other work that was handed over. */
  readonly name: string
  readonly agent: string
  readonly fn: string
  readonly tenant: string
  readonly taskId: string
  readonly attempt: number
  /** As it came with the task; one that isn't valid begins a new trace. */
  readonly traceparent: string | null
}

export const taskSpan = 'agent.task.execute'

export function fnSpan(fn: string): string {
  return `agent.fn.${fn}`
}

/** Passes its context on and does nothing else. A class, of which one for each task costs next to nothing. */
export class Unrecorded implements Trace {
  readonly #own: Traceparent

  constructor(own: Traceparent) {
    this.#own = own
  }

  get traceparent(): string {
    return formatTraceparent(this.#own)
  }

  get traceId(): string {
    return this.#own.traceId
  }

  get sampled(): boolean {
    return this.#own.sampled
  }

  async span<T>(_name: string, _attributes: Attributes, work: (trace: Trace) => Promise<T>): Promise<T> {
    return work(this)
  }

  fail(): void {}
}
