import { ZodError } from 'zod'
import {
  TaskFailure,
  type AgentFunction,
  type Context,
  type ContextLog,
  type Spending,
  type TaskFacts,
} from '../agents/define.ts'
import { deepestValue, depthOf } from '../depth.ts'
import type { ClaimedTask, Effects, EndedTask, LogEntry } from '../drivers/contract/fleet.ts'
import { TmsError } from '../errors.ts'
import { redact, redactText, type Json } from '../redaction/redact.ts'
import { fnSpan, taskSpan, type Trace } from '../tracing/trace.ts'
import type { Tracer } from '../tracing/tracer.ts'
import { failureOf, mismatch, type Failure } from './failure.ts'
import { isStorable, storableJson, storableText } from './storable.ts'

/** What the context needs of the world. */
export type Reach = {
  readonly now: () => number
  readonly tracer: Tracer
  readonly fetch: typeof fetch
  readonly spend: (task: ClaimedTask, amount: Spending) => Promise<void>
  readonly storeStep: (task: ClaimedTask, name: string, result: Json) => Promise<Json>
  readonly flag: (tenant: string, key: string) => Promise<Json>
}

/**
 * Tells a running task to stop. An AbortController is made only for who looks at it: it costs more than all else that a
 * worker does for a short task.
 */
export class Stopper {
  #why: Stop | null = null
  #controller: AbortController | null = null

  get why(): Stop | null {
    return this.#why
  }

  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController()
      if (this.#why !== null) this.#controller.abort(this.#why)
    }
    return this.#controller.signal
  }

  /** The first reason stays. */
  stop(why: Stop): void {
    this.#why ??= why
    this.#controller?.abort(this.#why)
  }
}

/** Why a task was told to stop. `timeout` and `crash` spend an attempt; the others hand the task back. */
export type Stop = 'halted' | 'paused' | 'shutdown' | 'lease lost' | 'timeout' | 'crash'

export type Ended = {
  readonly task: ClaimedTask
  readonly ms: number
  readonly traceId: string | null
  /** Null: completed, and nothing else to say. */
  readonly rest: EndedTask | null
  readonly logs: readonly LogEntry[]
}

type Plain = NonNullable<EndedTask['output']>
type Collected = { readonly [K in keyof Effects]-?: NonNullable<Effects[K]> }

/** One attempt of a task, and what it has said so far. */
type Attempt = {
  readonly task: ClaimedTask
  readonly stopper: Stopper
  readonly trace: Trace
  readonly effects: Collected
  readonly logs: LogEntry[]
  readonly open: { readonly yes: boolean }
  readonly reach: Reach
}

const mostLogs = 200
const priorities = { low: -1, normal: 0, high: 1 } as const
const longestName = 200
const longestDelayMs = 365 * 86_400_000

/** Runs one task to its end. Never rejects: every way to end is a value. */
export async function execute(task: ClaimedTask, fn: AgentFunction, stopper: Stopper, reach: Reach): Promise<Ended> {
  const began = reach.now()
  let traceId: string | null = null
  const logs: LogEntry[] = []
  const effects: Collected = { apply: [], events: [], tasks: [] }
  const open = { yes: true }
  let outcome: { readonly output: Plain | undefined } | { readonly failure: Failure }
  let turnedAway = false
  try {
    const input = fn.input.safeParse(task.payload)
    if (!input.success) {
      outcome = { failure: { ...mismatch('input', input.error), unfit: true } }
      traceId = await reach.tracer.task(infoOf(task), async (trace) => {
        trace.fail(new TaskFailure('validation', 'its input does not fit'))
        return trace.traceId
      })
    } else {
      outcome = await reach.tracer.task(infoOf(task), (trace) => {
        traceId = trace.traceId
        const run = async (inner: Trace) => {
          const context = new TaskContext({ task, stopper, trace: inner, effects, logs, open, reach })
          // True: the schema that belongs to `run` has just made this value.
          const output = checkedOutput(fn, await fn.run(context, input.data as never))
          // Ended all the same, and late: the span must not say that it went well.
          if (stopper.why === 'timeout') throw new TaskFailure('timeout', tooLong(task))
          return { output }
        }
        return trace.sampled ? trace.span(fnSpan(task.fn), {}, run) : run(trace)
      })
    }
  } catch (thrown) {
    outcome = { failure: thrown instanceof ZodError ? mismatch('input', thrown) : failureOf(thrown) }
    // The database turned the task's own call away before this worker had heard of the halt: nobody's failure.
    turnedAway = thrown instanceof TmsError && (thrown.code === 'FENCED' || thrown.code === 'PAUSED')
  }
  open.yes = false
  const ms = Math.max(0, Math.round(reach.now() - began))
  const base = { id: task.id, claim: task.claim, ms, trace: traceId }
  if (stopper.why !== null || turnedAway) return ended(stopped(task, stopper.why, base))
  if ('failure' in outcome) return ended({ ...base, outcome: 'failed', ...outcome.failure })
  const said: Effects = {
    ...(effects.apply.length > 0 ? { apply: effects.apply } : {}),
    ...(effects.events.length > 0 ? { events: effects.events } : {}),
    ...(effects.tasks.length > 0 ? { tasks: effects.tasks } : {}),
  }
  const quiet = Object.keys(said).length === 0
  if (quiet && outcome.output === undefined) return { task, ms, traceId, rest: null, logs }
  return ended({
    ...base,
    outcome: 'completed',
    ...(quiet ? {} : { effects: said }),
    ...(outcome.output === undefined ? {} : { output: outcome.output }),
  })

  function ended(rest: EndedTask): Ended {
    return { task, ms, traceId, rest, logs }
  }
}

/** The end of a task that was told to stop, whatever its handler made of it. */
export function stopped(
  task: ClaimedTask,
  why: Stop | null,
  base: Pick<EndedTask, 'id' | 'claim' | 'ms' | 'trace'>,
): EndedTask {
  switch (why) {
    case 'timeout':
      return { ...base, outcome: 'failed', class: 'timeout', error: tooLong(task), retry: true }
    case 'crash':
      // Whose error it was nobody knows: who ends its process each time must not begin anew for ever.
      return { ...base, outcome: 'failed', class: 'bug', error: 'an uncaught error ended its process', retry: true }
    default:
      return { ...base, outcome: 'returned' }
  }
}

function tooLong({ timeoutMs }: ClaimedTask): string {
  return `it ran longer than ${timeoutMs} ms`
}

/** Inside the span, so that an output nobody can use is a failure there too. */
function checkedOutput(fn: AgentFunction, output: unknown): Plain | undefined {
  const checked = fn.output.safeParse(output)
  if (!checked.success) throw new TaskFailure('validation', mismatch('output', checked.error).error)
  // True: what an output schema gives and JSON can't hold fails in `plain`, here, in its own task.
  return checked.data === undefined ? undefined : plain(checked.data as Json)
}

function infoOf(task: ClaimedTask) {
  return {
    name: taskSpan,
    agent: task.agent,
    fn: task.fn,
    tenant: task.tenant,
    taskId: task.id,
    attempt: task.attempt,
    traceparent: task.traceparent,
  }
}

/**
 * What a handler works with. Each thing is made when it is looked at, and can be taken out of it (`{ publish, log }`): a task uses few of
 * them, and making all for each cost a fast worker as much as running it.
 */
class TaskContext implements Context {
  readonly #of: Attempt
  #task: TaskFacts | undefined
  #log: ContextLog | undefined
  #step: Context['step'] | undefined

  constructor(of: Attempt) {
    this.#of = of
  }

  get task(): TaskFacts {
    const { task, trace } = this.#of
    return (this.#task ??= {
      id: task.id,
      function: task.fn,
      attempt: task.attempt,
      lastAttempt: task.attempt >= task.maxAttempts,
      traceId: trace.traceId,
    })
  }

  get tenant(): string {
    return this.#of.task.tenant
  }

  get signal(): AbortSignal {
    return this.#of.stopper.signal
  }

  get log(): ContextLog {
    const level = (of: LogEntry['level']) => logger(this.#of, of)
    return (this.#log ??= { debug: level('debug'), info: level('info'), warn: level('warn'), error: level('error') })
  }

  get publish(): Context['publish'] {
    const of = this.#of
    return (topic, payload, options = {}) => {
      alive(of)
      checkName('topic', topic)
      of.effects.events.push({
        topic,
        payload: plain(payload),
        ...given('key', options.key, shortText),
        ...given('order', options.order, shortText),
        traceparent: of.trace.traceparent,
      })
    }
  }

  get enqueue(): Context['enqueue'] {
    const of = this.#of
    return (fn, payload, options = {}) => {
      alive(of)
      checkName('function', fn)
      of.effects.tasks.push({
        function: fn,
        payload: plain(payload),
        ...given('key', options.key, shortText),
        ...given('delay_ms', options.delayMs, delay),
        ...given('priority', options.priority, priority),
        traceparent: of.trace.traceparent,
      })
    }
  }

  get apply(): Context['apply'] {
    const of = this.#of
    return (fn, args) => {
      alive(of)
      checkName('SQL function', fn)
      of.effects.apply.push({ fn, args: plain(args) })
    }
  }

  get spend(): Context['spend'] {
    const of = this.#of
    return async (amount) => {
      alive(of)
      await of.reach.spend(of.task, amounts(amount))
    }
  }

  get step(): Context['step'] {
    return (this.#step ??= stepper(this.#of))
  }

  get flag(): Context['flag'] {
    const { reach, task } = this.#of
    return (key) => reach.flag(task.tenant, key)
  }

  get fetch(): Context['fetch'] {
    const of = this.#of
    return (url, init = {}) => {
      alive(of)
      const headers = new Headers(init.headers)
      if (!headers.has('traceparent')) headers.set('traceparent', of.trace.traceparent)
      const { signal } = of.stopper
      return of.reach.fetch(url, {
        ...init,
        headers,
        signal: init.signal ? AbortSignal.any([signal, init.signal]) : signal,
      })
    }
  }

  get span(): Context['span'] {
    const { trace } = this.#of
    return (name, work) => trace.span(name, {}, work)
  }
}

/** What a handler that ignored its end still says goes nowhere, and it should know. */
function alive({ task, stopper, open }: Attempt): void {
  if (!open.yes) throw new TaskFailure('bug', `task ${task.id} has ended: nothing it does now is kept`)
  if (stopper.why !== null) stopper.signal.throwIfAborted()
}

function logger({ task, trace, logs, open }: Attempt, level: LogEntry['level']): ContextLog[LogEntry['level']] {
  return (message: unknown, fields?: Readonly<Record<string, unknown>>) => {
    if (!open.yes || logs.length >= mostLogs) return
    const said = typeof message === 'string' ? redactText(message) : JSON.stringify(redact(message))
    logs.push({
      at: new Date(Date.now()).toISOString(),
      task: task.id,
      claim: task.claim,
      agent: task.agent,
      level,
      // Cleaned after the cut, which may halve a pair: a line of log must not cost a task its work.
      message: storableText(said.slice(0, 4000)),
      ...(fields === undefined
        ? {}
        : { fields: storableJson(redact(fields, { limit: 4096 })) as NonNullable<LogEntry['fields']> }),
      trace: trace.traceId,
    })
  }
}

function stepper(of: Attempt): Context['step'] {
  const { task, reach } = of
  /** The steps of this attempt, begun or done. */
  const steps = new Map<string, Promise<unknown>>()
  return async (name: string, work: () => Promise<unknown>) => {
    alive(of)
    shortText('step', name)
    // True: only `step` stores under this name, and stored what `work` of an earlier attempt gave.
    if (task.steps !== null && Object.hasOwn(task.steps, name)) return task.steps[name] as never
    const known = steps.get(name)
    if (known !== undefined) return known as never
    const begun = (async () => {
      const result = await work()
      alive(of)
      // True: what JSON can't hold fails in `plain`.
      return reach.storeStep(task, name, plain((result ?? null) as Json))
    })()
    steps.set(name, begun)
    // What failed may be tried again within the attempt.
    begun.catch(() => steps.delete(name))
    return begun as never
  }
}

/** The database names what it refuses: a name that came from data must not carry that data into errors. */
function checkName(what: string, name: string): void {
  if (typeof name !== 'string') throw new TaskFailure('validation', `the name of a ${what} is a text`)
  const safe = redactText(name)
  if (safe !== name) throw new TaskFailure('validation', `"${safe}" is no name of a ${what}`)
}

/** Nothing, or the option under its name in the contract: agents are JavaScript, where a type is a wish. */
function given<K extends string, T, U>(
  name: K,
  value: T | undefined,
  check: (name: K, value: T) => U,
): { readonly [P in K]?: U } {
  // True: a computed name that is of one type has no other.
  return value === undefined ? {} : ({ [name]: check(name, value) } as { [P in K]: U })
}

function shortText(name: string, text: unknown): string {
  if (typeof text !== 'string' || text === '' || Array.from(text).length > longestName || storableText(text) !== text) {
    throw new TaskFailure('validation', `${name}: a text of 1 to ${longestName} characters, none of them NUL`)
  }
  return text
}

/** What is due already begins at once. */
function delay(_: string, ms: unknown): number {
  if (typeof ms !== 'number' || !Number.isFinite(ms) || ms > longestDelayMs) {
    throw new TaskFailure('validation', 'delayMs: a number of milliseconds, a year at most')
  }
  return Math.max(0, Math.round(ms))
}

function priority(_: string, word: unknown): number {
  const [, value] = Object.entries(priorities).find(([known]) => known === word) ?? []
  if (value === undefined) throw new TaskFailure('validation', "priority: 'low', 'normal' or 'high'")
  return value
}

/** What is spent. An amount that is missing or no number would count as nothing, and no limit would ever be reached. */
function amounts(amount: Spending): Spending {
  const said = {
    ...('tokens' in amount ? { tokens: whole('tokens', amount.tokens) } : {}),
    ...('calls' in amount ? { calls: whole('calls', amount.calls) } : {}),
    ...('cost' in amount ? { cost: money(amount.cost) } : {}),
  }
  if (Object.keys(said).length === 0) throw new TaskFailure('validation', 'spend: one of tokens, calls and cost')
  return said
}

function whole(name: string, value: unknown): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw new TaskFailure('validation', `spend: ${name} is a whole number, 0 or more`)
}

function money(value: unknown): string {
  const text = typeof value === 'number' ? String(value) : value
  if (typeof text === 'string' && /^\d{1,30}(\.\d{1,30})?$/.test(text)) return text
  throw new TaskFailure('validation', 'spend: cost is a decimal as text, 0 or more')
}

/** A copy as JSON makes it: later changes by the handler change nothing, and what JSON can't hold fails here, in its task. */
function plain(value: Json): Plain {
  const text = asJson(value)
  if (text === undefined) throw new TaskFailure('validation', 'a value that JSON cannot hold')
  // jsonb has neither
  if (!isStorable(text)) throw new TaskFailure('validation', 'a text with a NUL character or half a surrogate pair')
  if (depthOf(text) > deepestValue)
    throw new TaskFailure('validation', `a value nested deeper than ${deepestValue} levels`)
  return JSON.parse(text) as Plain
}

/** Undefined: it can't be one. A BigInt, a circle and what is too deep throw, a function gives undefined. */
function asJson(value: unknown): string | undefined {
  try {
    return JSON.stringify(value)
  } catch {
    return undefined
  }
}
