import type * as z from 'zod'
import type { ErrorClass } from '../drivers/contract/fleet.ts'
import type { Json } from '../redaction/redact.ts'

/** What an agent's author writes against. Exported at `@transbot/tms/agent`. */

export type Agent = {
  readonly name: string
  readonly functions: Readonly<Record<string, AgentFunction>>
}

export type AgentFunction = {
  readonly input: z.ZodType
  readonly output: z.ZodType
  readonly run: (context: Context, input: never) => Promise<unknown>
}

export type Context = {
  readonly task: TaskFacts
  /** The tenant's key. */
  readonly tenant: string
  /** Aborts on a halt, a pause, the time limit, a lost lease and the end of the process. Pass it on to whatever waits. */
  readonly signal: AbortSignal
  readonly log: ContextLog
  /** Leaves an event in the outbox, together with the end of this task. Key and order have 1 to 200 characters. */
  publish(topic: string, payload: Json, options?: { readonly key?: string; readonly order?: string }): void
  /** A task for another function, together with the end of this one. Of the same tenant. */
  enqueue(fn: string, payload: Json, options?: FollowUp): void
  /** Calls a SQL function of yours in the transaction that ends this task. */
  apply(sqlFunction: string, args: Json): void
  /** Counts tokens, calls and money at once; throws when the policy doesn't allow as much, or when it names no amount. */
  spend(amount: Spending): Promise<void>
  /** Runs `work` once: who comes again under this name, in this attempt or in a retry, gets its result. Nothing is kept as null. */
  step<T extends Json>(name: string, work: () => Promise<T>): Promise<T>
  step(name: string, work: () => Promise<void>): Promise<null>
  /** A flag's value for this tenant. */
  flag(key: string): Promise<Json>
  /** `fetch` that ends with the task and carries its trace. */
  fetch(url: string | URL, init?: RequestInit): Promise<Response>
  span<T>(name: string, work: () => Promise<T>): Promise<T>
}

export type TaskFacts = {
  readonly id: string
  readonly function: string
  readonly attempt: number
  readonly lastAttempt: boolean
  readonly traceId: string
}

export type ContextLog = Readonly<
  Record<'debug' | 'info' | 'warn' | 'error', (message: string, fields?: Readonly<Record<string, unknown>>) => void>
>

export type FollowUp = {
  /** 1 to 200 characters. */
  readonly key?: string
  /** A year at most. */
  readonly delayMs?: number
  readonly priority?: 'low' | 'normal' | 'high'
}

export type Spending = {
  readonly tokens?: number
  readonly calls?: number
  /** Decimal, as text: "0.0125". */
  readonly cost?: string
}

/** A failure whose class is known: it decides whether another try makes sense. */
export class TaskFailure extends Error {
  readonly class: ErrorClass
  readonly retry: boolean

  constructor(kind: ErrorClass, message: string, options: ErrorOptions & { readonly retry?: boolean } = {}) {
    super(message, options)
    this.name = 'TaskFailure'
    this.class = kind
    this.retry = options.retry ?? (kind !== 'validation' && kind !== 'policy')
  }
}

/** Checks names while the module loads, where the author sees it. */
export function defineAgent<
  I extends Readonly<Record<string, z.ZodType>>,
  O extends { readonly [K in keyof I]: z.ZodType },
>(agent: {
  readonly name: string
  readonly functions: {
    readonly [K in keyof I]: {
      readonly input: I[K]
      readonly output: O[K]
      readonly run: (context: Context, input: z.output<I[K]>) => Promise<z.input<O[K]>>
    }
  }
}): Agent {
  if (!/^[a-z][a-z0-9_-]{0,62}$/.test(agent.name)) {
    throw new TypeError(`"${agent.name}" is no name of an agent: lower case letters, digits, - and _`)
  }
  const names = Object.keys(agent.functions)
  if (names.length === 0) throw new TypeError(`agent ${agent.name} has no function`)
  for (const name of names) {
    if (!/^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$/.test(name) || name.length > 120) {
      throw new TypeError(`"${name}" is no name of a function: like rates.price_one`)
    }
  }
  // True: `run` is only ever called with what its own input schema made.
  return agent
}

/** A module's default export that came from `defineAgent`, perhaps of another copy of this package. */
export function isAgent(value: unknown): value is Agent {
  if (typeof value !== 'object' || value === null || !('name' in value) || !('functions' in value)) return false
  const { name, functions } = value
  return (
    typeof name === 'string' &&
    typeof functions === 'object' &&
    functions !== null &&
    Object.values(functions).every(
      (fn: unknown) =>
        typeof fn === 'object' &&
        fn !== null &&
        'run' in fn &&
        'input' in fn &&
        'output' in fn &&
        typeof fn.run === 'function',
    )
  )
}
