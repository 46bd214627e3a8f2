import { randomUUID } from 'node:crypto'
import type { Agent, Spending } from '../agents/define.ts'
import type { ClaimedTask, Control, EndedTask, LogEntry } from '../drivers/contract/fleet.ts'
import type { Driver, Unlisten } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError, type ErrorCode } from '../errors.ts'
import type { Logger } from '../redaction/logger.ts'
import { redactText, type Json } from '../redaction/redact.ts'
import type { Tracer } from '../tracing/tracer.ts'
import { execute, stopped, Stopper, type Ended, type Stop } from './execute.ts'

/**
 * One worker: leases slots, claims ahead of them, runs handlers, ends tasks in batches.
 *
 * Nothing here guards anything: the database refuses whatever a worker may not do. This only makes work fast, and stops
 * handlers early whose end would be refused.
 */
export type WorkerOptions = {
  readonly driver: Driver
  readonly agents: readonly Agent[]
  readonly name: string
  readonly host: string
  readonly pid: number
  /** Handlers that run at once, as far as the fleet's limit leaves them. */
  readonly slots: number
  readonly tracer: Tracer
  readonly log: Logger
  readonly fetch: typeof fetch
  readonly now: () => number
  /** Looks for work this often when nothing wakes it: delayed tasks, retries, and where there is no push. */
  readonly pollMs: number
  /** Whether this host's workers stand still, whatever the database says: asked with how long ago the last halt ended. */
  readonly stoppedHere?: ((resumedAgoMs: number | null) => Promise<boolean>) | undefined
  readonly onEnd?: (ended: Ended, outcome: string) => void
}

export type Stats = {
  readonly worker: string | null
  readonly slots: number
  readonly running: number
  readonly waiting: number
  readonly completed: number
  readonly failed: number
  readonly returned: number
  readonly halted: boolean
  readonly reachable: boolean
}

export type Worker = {
  stats(): Stats
  /** Hands back what hasn't begun, gives what runs `graceMs`, ends. */
  stop(graceMs: number): Promise<void>
  /** The same after an error that nobody caught: what runs is worth nothing, and has spent its attempt. */
  crash(): Promise<void>
  /** Resolves when it has ended. */
  readonly ended: Promise<void>
}

const beatMs = 3000
/** The database gives at most this many times the slots. */
const mostAhead = 40
/** What waits here for so long could have been done elsewhere. */
const lyingMs = 100
/** Between two small claims, and before a small batch is ended: what comes meanwhile goes along. */
const breathMs = 2
/** The same for a batch that isn't full, where the one before it had much: a call costs the database what 100 tasks do. */
const busyBreathMs = 10
/** So many at once are much. */
const much = 100
/** One call's worth: stays below the largest request of every driver. */
const batchBytes = 700_000
const batchItems = 1000
/** tms._log keeps so many lines of one call, and drops the others. */
const batchLines = 2000
/** What waits here for so long goes back: its time limit counts from the claim, and it must not be up before it has begun. */
const waitMs = 5000
/** After something came that it has no code for, a worker waits so long with its next claim. */
const lackMs = 1000
/** So long signals may come faster than the answers that say what they mean. */
const doubtMs = 250
/** What safe mode turned away is tried again after so long. */
const safeModeDelayMs = 30_000
/** A function that this code doesn't have is looked for elsewhere meanwhile; how often that is worth a line. */
const noCodeDelayMs = 10_000
const noCodeLineMs = 60_000
/** After its time limit a handler may still clean up for so long; then its slot is needed. */
const hangMs = 5000

/** Answers that say nothing about a batch, only that the database is slow or full: none of its tasks is failed for them. */
const overloaded: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['DB_TIMEOUT', 'DB_BUSY', 'DB_FULL'])
/** Answers of the server itself to what a batch holds, with which it will not take it later either. */
const unanswerable: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['DB_ERROR', 'SCHEMA_ABSENT', 'SCHEMA_OLDER'])

type Waiting = {
  readonly held: ClaimedTask
  readonly came: number
}

type Running = {
  readonly stopper: Stopper
  readonly began: number
  readonly deadline: number
  readonly held: ClaimedTask
}

export async function startWorker(options: WorkerOptions): Promise<Worker> {
  const { driver, log, now } = options
  const functions = new Map(options.agents.flatMap((agent) => Object.entries(agent.functions)))
  let worker: string | null = null
  let slots = 0
  let control: Control | null = null
  /** Between a signal and the answer to a call of after it, nothing begins: the calls made until then. Null: nothing is in doubt. */
  let doubted: number | null = null
  let doubtedSince = 0
  let stoppedHere = false
  /** When the last halt ended, by this process's clock; null while nothing is known of one. */
  let resumedAt: number | null = null
  let looking = false
  /** Calls are numbered as they begin: an answer that a later call has overtaken must not undo what that one said. */
  let calls = 0
  let obeyed = 0
  let reachable = true
  let stopping = false
  let claiming = 0
  /** A claim was made whose answer never came: what it brought is held by nobody. */
  let unanswered = false
  /** How many claims were made; null: the database doesn't count them. */
  let nth: number | null = null
  /** Batches on their way to the database. */
  const ending = new Set<readonly Ended[]>()
  let endingTasks = 0
  let wanted = true
  let drained: (() => void) | undefined
  const buffer: Waiting[] = []
  let head = 0
  const running = new Set<Running>()
  const ended: Ended[] = []
  let lastPoll = 0
  /** How much the last claim brought: one right after it pays only when there is much. */
  let brought = 0
  let lastClaim = 0
  /**
   * How much is held at most, beginning with what can run at once: more while it is gone before the next claim brings more, less
   * when it lies about. What lies here can't be taken by a worker that is free.
   */
  let ahead = 0
  /** When what was claimed last came. */
  let oldest = 0
  let later: NodeJS.Timeout | null = null
  /** When something came that this worker has no code for. */
  let lackedAt = -Infinity
  let lastEnd = 0
  let endedLast = 0
  let endLater: NodeJS.Timeout | null = null
  /** When which function was last told of as missing. */
  const missing = new Map<string, number>()
  const count = { completed: 0, failed: 0, returned: 0 }
  const unlisten: Unlisten[] = []
  const timers: NodeJS.Timeout[] = []
  const flags = new Map<string, { readonly until: number; readonly value: Promise<Json> }>()
  let finished: () => void = () => undefined
  const endedPromise = new Promise<void>((resolve) => (finished = resolve))

  const waiting = () => buffer.length - head
  const still = () => control === null || control.halted || doubted !== null || stopping || stoppedHere
  const barred = (task: ClaimedTask) => {
    const of = control?.agents[task.agent] ?? control?.tenants[task.companyId]
    return of === 'paused' || of === 'quarantined'
  }

  // ---- control

  function obey(next: Control, call: number): void {
    // What was asked before the signal says nothing of it. But any login can send signals without end, and must not stop the work so.
    if (doubted !== null && (call > doubted || now() - doubtedSince > doubtMs)) doubted = null
    if (call < obeyed) return
    obeyed = call
    const was = control
    control = next
    if (next.halted) {
      stopRunning(() => true, 'halted')
      return
    }
    if (Object.keys(next.agents).length + Object.keys(next.tenants).length > 0) {
      stopRunning(barred, 'paused')
      handBack(({ held }) => barred(held))
    }
    // What was held through a halt goes back: whoever is free takes it.
    if (was?.halted === true) handBack(() => true)
    wanted = true
  }

  /** Counted from when the question left: too old, if anything, and a file is obeyed rather too long. */
  function hearOfResume(agoMs: number | null, asked: number): void {
    resumedAt = agoMs === null ? null : asked - agoMs
  }

  /** Looked at ten times a second: a file in this host's cache. In doubt it stands still. */
  async function lookHere(): Promise<void> {
    if (options.stoppedHere === undefined || looking) return
    looking = true
    const was = stoppedHere
    stoppedHere = await options.stoppedHere(resumedAt === null ? null : now() - resumedAt).catch(() => true)
    looking = false
    if (stoppedHere === was) return
    log.warn(stoppedHere ? 'stopped: the button was pressed on this host' : 'the stop of this host is over')
    if (stoppedHere) return stopRunning(() => true, 'halted')
    // As after a halt: what was held meanwhile goes back.
    handBack(() => true)
    wanted = true
    pump()
  }

  function stopRunning(which: (task: ClaimedTask) => boolean, why: Stop): void {
    for (const { stopper, held } of running) if (which(held)) stopper.stop(why)
  }

  /** Tasks that haven't begun, without an attempt spent. */
  function handBack(which: (waiting: Waiting) => boolean): void {
    const keep: Waiting[] = []
    for (const one of buffer.slice(head)) {
      const { held } = one
      if (!which(one)) keep.push(one)
      else
        ended.push({
          task: held,
          ms: 0,
          traceId: null,
          logs: [],
          rest: { id: held.id, claim: held.claim, outcome: 'returned' },
        })
    }
    buffer.length = 0
    head = 0
    buffer.push(...keep)
    flush()
  }

  /** The lease is gone: all of this belongs to others, or will. */
  function loseAll(): void {
    stopRunning(() => true, 'lease lost')
    buffer.length = 0
    head = 0
    ended.length = 0
    worker = null
    unanswered = false
  }

  async function hello(): Promise<void> {
    const call = ++calls
    const asked = now()
    const said = granted(
      await driver.call('worker_hello', {
        request_id: randomUUID(),
        name: options.name,
        host: options.host,
        pid: options.pid,
        agents: options.agents.map(({ name }) => name),
        slots: options.slots,
      }),
    )
    worker = said.worker
    nth = said.numbers_claims === true ? 0 : null
    slots = said.slots
    hearOfResume(said.resumed_ms_ago, asked)
    obey(said.control, call)
  }

  let beating: Promise<void> | undefined
  const beat = () => (beating ??= beatOnce().finally(() => (beating = undefined)))

  async function beatOnce(): Promise<void> {
    if (worker === null) {
      if (stopping) return
      return attempt('sign in', hello)
    }
    const mine = worker
    await attempt('beat', async () => {
      const call = ++calls
      const asked = now()
      const said = granted(
        await driver.call('worker_beat', {
          worker: mine,
          slots: options.slots,
          ...(control?.halted === true ? { acknowledges: control.epoch } : {}),
        }),
      )
      slots = said.slots
      hearOfResume(said.resumed_ms_ago, asked)
      const news = said.control.halted && control?.halted !== true
      obey(said.control, call)
      // The halt waits 300 ms for this.
      if (news) granted(await driver.call('worker_beat', { worker: mine, acknowledges: said.control.epoch }))
    })
    pump()
  }

  /** What was meant, from a beat that began after this was asked: one under way may have been answered before. */
  async function ask(): Promise<void> {
    if (doubted === null) doubtedSince = now()
    doubted = calls
    await beating
    await beat()
  }

  /** Whether the database can be reached is worth a line once, not once a second. */
  async function attempt(what: string, work: () => Promise<void>): Promise<void> {
    const mine = worker
    try {
      await work()
      if (!reachable) log.info('the database answers again')
      reachable = true
    } catch (error) {
      if (error instanceof TmsError && error.code === 'LEASE_LOST') {
        // Said of a lease that is over already: what is held now belongs to the next one.
        if (mine !== worker) return
        log.warn('the lease was lost', { worker })
        loseAll()
        return
      }
      if (reachable) log.warn(`cannot ${what}`, { error: error instanceof Error ? error.message : String(error) })
      reachable = false
    }
  }

  // ---- claiming

  function pump(): void {
    begin()
    flush()
    if (worker === null || still() || slots === 0 || !reachable) return
    ahead = Math.min(Math.max(ahead, slots), slots * mostAhead)
    const room = ahead - waiting() - running.size - ended.length - endingTasks
    const low = waiting() <= ahead / 2
    if (!wanted || !low || room <= 0) return
    // The database takes the claims of one worker one after the other.
    if (claiming >= 1) return
    // Who has no code for what comes must not be quicker at taking it than who has.
    const wait = Math.max(brought >= much ? 0 : breathMs - (now() - lastClaim), lackMs - (now() - lackedAt))
    if (wait > 0) {
      later ??= setTimeout(() => {
        later = null
        pump()
      }, wait)
      return
    }
    void claim(Math.min(room, batchItems))
  }

  async function claim(limit: number): Promise<void> {
    const mine = worker
    if (mine === null) return
    claiming++
    wanted = false
    lastPoll = now()
    lastClaim = lastPoll
    await attempt('claim', async () => {
      const call = ++calls
      const numbered = nth === null ? {} : { nth: ++nth, ...(unanswered ? { holds: known().join(',') } : {}) }
      unanswered = true
      const answer = granted(await driver.call('tasks_claim', { worker: mine, limit, ...numbered }))
      const { control: next, more, overtaken, tasks } = answer
      // The driver asks again where an answer got lost, and hears that the claim was made.
      unanswered = overtaken
      obeyQuietly(next, call)
      if (mine !== worker) return
      brought = tasks.length
      const quick = lastPoll - oldest < lyingMs
      if (quick && more && waiting() === 0) ahead *= 2
      else if (!quick && waiting() > 0) ahead /= 2
      oldest = now()
      buffer.push(...tasks.map((held) => ({ held, came: oldest })))
      if (more || overtaken) wanted = true
    })
    claiming--
    pump()
  }

  /** The ids of all that this worker knows to be its own. */
  function known(): string[] {
    return [
      ...buffer.slice(head).map((one) => one.held),
      ...Array.from(running, (one) => one.held),
      ...[ended, ...ending].flatMap((batch) => batch.map(({ task }) => task)),
    ].map(({ id }) => id)
  }

  /** The answer to a claim says the same as a beat's; only a change is news. */
  function obeyQuietly(next: Control, call: number): void {
    if (call < obeyed) return
    const asked = wanted
    if (control?.halted !== next.halted || Object.keys(next.agents).length + Object.keys(next.tenants).length > 0)
      obey(next, call)
    else {
      obeyed = call
      control = next
    }
    wanted = asked
  }

  // ---- running

  function begin(): void {
    while (running.size < slots && waiting() > 0 && !still()) {
      const next = buffer[head++]
      if (next === undefined) break
      if (head > 1024) {
        buffer.splice(0, head)
        head = 0
      }
      run(next.held)
    }
  }

  function run(held: ClaimedTask): void {
    const known = functions.get(held.fn)
    if (known === undefined) {
      // The policy names a function that this worker's code doesn't have: another worker may, of the next release for instance.
      const at = now()
      lackedAt = at
      ahead = slots
      if (at - (missing.get(held.fn) ?? -noCodeLineMs) >= noCodeLineMs) {
        missing.set(held.fn, at)
        log.warn(`no code for ${held.fn} here: its tasks wait for a worker that has it`, { task: held.id })
      }
      ended.push({
        task: held,
        ms: 0,
        traceId: null,
        logs: [],
        rest: {
          id: held.id,
          claim: held.claim,
          outcome: 'returned',
          delay_ms: noCodeDelayMs,
          error: `no code for ${held.fn} here`,
        },
      })
      return
    }
    const stopper = new Stopper()
    const began = now()
    const one = { stopper, began, held, deadline: began + held.timeoutMs }
    running.add(one)
    void execute(held, known, stopper, reach).then((result) => {
      // Given up before: it has ended without this.
      if (!running.delete(one)) return
      if (stopper.why === 'lease lost') return pump()
      ended.push(result)
      soon()
    })
  }

  /** Ends a task without its handler, whose promise may never settle; what that still does goes nowhere. */
  function giveUp(one: Running): void {
    running.delete(one)
    const { stopper, held, began } = one
    if (stopper.why === 'lease lost') return
    const ms = Math.round(now() - began)
    const rest = stopped(held, stopper.why, { id: held.id, claim: held.claim, ms })
    ended.push({ task: held, ms, traceId: null, logs: [], rest })
  }

  /** Handlers that end together are ended together. */
  let scheduled = false
  function soon(): void {
    if (scheduled) return
    scheduled = true
    setImmediate(() => {
      scheduled = false
      pump()
    })
  }

  const reach = {
    now,
    tracer: options.tracer,
    fetch: options.fetch,
    async spend(task: ClaimedTask, amount: Spending) {
      granted(
        await driver.call('tasks_spend', {
          worker: worker ?? '0',
          id: task.id,
          claim: task.claim,
          ...amount,
        }),
      )
    },
    async storeStep(task: ClaimedTask, name: string, result: Json) {
      const stored = granted(
        await driver.call('tasks_step', {
          worker: worker ?? '0',
          id: task.id,
          claim: task.claim,
          name,
          // True: Json is what the contract's json schema takes; only its arrays are not declared read-only there.
          result: result as never,
        }),
      )
      return stored.result as Json
    },
    flag(tenant: string, key: string): Promise<Json> {
      const cached = flags.get(tenant + ' ' + key)
      if (cached && cached.until > now()) return cached.value
      const value = driver.call('flags_get', { tenant, key }).then((answer) => granted(answer).flag.value as Json)
      flags.set(tenant + ' ' + key, { until: now() + 5000, value })
      value.catch(() => flags.delete(tenant + ' ' + key))
      return value
    },
  }

  // ---- ending

  /** Two batches under way at most, the second a full one: the next one collects what ends meanwhile. */
  function flush(): void {
    if (ended.length === 0 || ending.size >= 2 || worker === null || !reachable) return maybeDrained()
    // While halted nothing may end; it is kept and handed back after.
    if (control?.halted === true || stoppedHere) return maybeDrained()
    // What has effects costs the database four times as much: half as many are worth a call.
    const full = ended[0]?.rest === null ? batchItems : batchItems / 2
    if (ending.size === 1 && ended.length < full) return
    if (ended.length < full && !stopping) {
      const wait = (endedLast >= much ? busyBreathMs : breathMs) - (now() - lastEnd)
      if (wait > 0) {
        endLater ??= setTimeout(() => {
          endLater = null
          flush()
        }, wait)
        return
      }
    }
    const batch = cut()
    endedLast = batch.length
    ending.add(batch)
    endingTasks += batch.length
    void finish(batch).finally(() => {
      ending.delete(batch)
      endingTasks -= batch.length
      lastEnd = now()
      pump()
    })
  }

  function cut(): Ended[] {
    let bytes = 0
    let lines = 0
    let n = 0
    for (const [at, one] of ended.entries()) {
      let size = sizeOf(one)
      if (size === null) size = sizeOf((ended[at] = untakable(one))) ?? 0
      lines += one.logs.length
      if (n > 0 && (bytes + size > batchBytes || lines > batchLines || n >= batchItems)) break
      bytes += size
      n++
    }
    return ended.splice(0, n)
  }

  async function finish(batch: readonly Ended[]): Promise<void> {
    const mine = worker
    const refused = await send(batch)
    if (refused === null) return
    // The database can't take this batch. Whose fault it is shows one by one.
    for (const [n, one] of batch.entries()) {
      if (mine !== worker) return
      if (!reachable || control?.halted === true) {
        ended.unshift(...batch.slice(n))
        return
      }
      await finishAlone(one, batch.length === 1 ? refused : await send([one]))
    }
  }

  /** One task, and why the database didn't take it: its work counts more than its log, and any end more than none. */
  async function finishAlone(one: Ended, refused: unknown): Promise<void> {
    if (refused === null) return
    let why: unknown = refused
    if (codeOf(why) === 'FENCED') {
      // Whatever it was that is over by now, it is asked again.
      why = await send([control?.safe_mode === true ? waitingForSafeMode(one) : one])
      if (why === null) return
    }
    if (!isOverloaded(why)) log.error('a task could not be ended', { task: one.task.id, error: textOf(why) })
    for (const form of [...(one.logs.length > 0 ? [{ ...one, logs: [] }] : []), untakable(one)]) {
      if (isOverloaded(why)) break
      why = await send([form])
      if (why === null) return
    }
    if (!(why instanceof TmsError && why.exit === 3)) return
    // Slow, or it doesn't even take a failure: tried again, behind the others, which it may be holding up.
    log.warn('cannot end tasks', { error: textOf(why) })
    reachable = false
    ended.push(one)
  }

  /** Null: this batch is dealt with, or kept for later. Else why the database didn't take it. */
  async function send(batch: readonly Ended[]): Promise<unknown> {
    const mine = worker
    if (mine === null) return null
    const call = ++calls
    try {
      const { control: next, outcomes } = granted(await driver.call('tasks_finish', { worker: mine, ...asCall(batch) }))
      reachable = true
      for (const one of batch) settle(one, outcomes[one.task.id] ?? 'completed', next)
      obeyQuietly(next, call)
      return null
    } catch (error) {
      const code = codeOf(error)
      if (code === 'LEASE_LOST') {
        if (mine === worker) loseAll()
        return null
      }
      if (code === 'NO_SLOT') {
        // What it holds goes to others now, and not when its lease ends; until then it would be counted beside its successor.
        log.warn('its slots were given to others', { worker: mine })
        if (mine === worker) loseAll()
        await driver.call('worker_bye', { worker: mine }).catch(() => undefined)
        return null
      }
      if (code === 'FENCED') {
        // By a halt, or by safe mode, which stops one task's write and no fleet: the control says which.
        await ask()
        if (mine !== worker) return null
        if (control?.halted !== true && reachable) return error
        // Not a minute's work is lost: it is done again after the resume.
        ended.unshift(...batch.map(returned))
        return null
      }
      if (
        error instanceof TmsError &&
        error.exit === 3 &&
        !overloaded.has(error.code) &&
        !unanswerable.has(error.code)
      ) {
        // Unknown whether it arrived; asking again is safe, and the lease decides how long it makes sense.
        if (reachable) log.warn('cannot end tasks', { error: error.message })
        reachable = false
        ended.unshift(...batch)
        return null
      }
      return error
    }
  }

  function settle(one: Ended, outcome: string, { safe_mode: safeMode }: Control): void {
    const { task, rest } = one
    if (
      outcome === 'returned' &&
      safeMode &&
      (rest?.effects?.apply !== undefined || rest?.delay_ms === safeModeDelayMs)
    ) {
      log.warn(`safe mode: ${task.fn} writes to a guarded table, its task waits`, { task: task.id })
    }
    if (outcome === 'completed' || outcome === 'awaiting_approval') count.completed++
    else if (outcome === 'returned' || outcome === 'stale' || outcome === 'paused') count.returned++
    else count.failed++
    options.onEnd?.(one, outcome)
  }

  function maybeDrained(): void {
    if (
      stopping &&
      running.size === 0 &&
      ending.size === 0 &&
      (ended.length === 0 || worker === null || !reachable || control?.halted === true || stoppedHere)
    )
      drained?.()
  }

  // ---- life

  function tick(): void {
    const at = now()
    for (const one of running) {
      if (one.deadline < at) one.stopper.stop('timeout')
      if (one.deadline + hangMs < at) {
        log.warn(`${one.held.fn} ignores its signal: its task has ended, its promise still hangs`, {
          task: one.held.id,
        })
        giveUp(one)
      }
    }
    // The oldest stands first. Held to what can run at once, until work is quick again.
    const first = buffer[head]
    if (first !== undefined && at - first.came >= waitMs) {
      handBack(({ came }) => at - came >= waitMs)
      ahead = slots
    }
    if (at - lastPoll >= options.pollMs) wanted = true
    void lookHere()
    if (!reachable && beating === undefined) void beat()
    pump()
  }

  async function house(): Promise<void> {
    if (still()) return
    await attempt('reap', async () => {
      granted(await driver.call('tasks_reap', {}))
    })
  }

  await hello()
  await lookHere()
  for (const [channel, heard] of [
    ['tasks', () => ((wanted = true), pump())],
    ['control', () => void ask()],
    ['flags', () => flags.clear()],
  ] as const) {
    unlisten.push(await driver.listen(channel, heard))
  }
  timers.push(
    setInterval(() => void beat(), beatMs),
    setInterval(tick, Math.min(options.pollMs, 100)),
    // Spread, so that many workers don't all look at once.
    setInterval(() => void house(), 5000 + Math.floor(Math.random() * 1000)),
  )
  // A fleet whose processes die young still takes back what the dead ones held.
  void house()
  pump()

  return {
    stats: () => ({
      worker,
      slots,
      running: running.size,
      waiting: waiting(),
      ...count,
      halted: (control?.halted ?? false) || stoppedHere,
      reachable,
    }),
    ended: endedPromise,
    stop,
    crash() {
      stopRunning(() => true, 'crash')
      for (const one of running) giveUp(one)
      return stop(0)
    },
  }

  async function stop(graceMs: number): Promise<void> {
    if (stopping) return endedPromise
    stopping = true
    handBack(() => true)
    await new Promise<void>((resolve) => {
      drained = resolve
      const abort = setTimeout(() => stopRunning(() => true, 'shutdown'), graceMs)
      // A handler that ignores its signal keeps nobody from ending; the database takes its task back.
      const leave = setTimeout(resolve, graceMs + 2000)
      timers.push(abort, leave)
      maybeDrained()
      pump()
    })
    for (const timer of timers) clearTimeout(timer)
    for (const quit of unlisten) await quit().catch(() => undefined)
    const mine = worker
    worker = null
    if (mine !== null && reachable) await driver.call('worker_bye', { worker: mine }).catch(() => undefined)
    finished()
  }
}

/** Null: JSON can't hold it. */
function sizeOf({ rest, logs }: Ended): number | null {
  if (rest === null && logs.length === 0) return 60
  try {
    return JSON.stringify([rest, logs]).length
  } catch {
    return null
  }
}

/** What is left to say of a task whose end the database can't take. */
function untakable({ task, ms, traceId, rest }: Ended): Ended {
  const { id, claim } = task
  const end = { id, claim, ms, trace: traceId, outcome: 'failed' } as const
  return {
    task,
    ms,
    traceId,
    logs: [],
    rest:
      rest?.outcome === 'failed'
        ? { ...end, class: rest.class, retry: rest.retry, error: 'the database cannot take what it failed with' }
        : { ...end, class: 'bug', retry: false, error: 'the database cannot take what it did' },
  }
}

function codeOf(error: unknown): ErrorCode | null {
  return error instanceof TmsError ? error.code : null
}

function isOverloaded(error: unknown): boolean {
  return error instanceof TmsError && overloaded.has(error.code)
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function returned(one: Ended): Ended {
  return { ...one, rest: { id: one.task.id, claim: one.task.claim, outcome: 'returned' } }
}

/** Its write to a guarded table was turned away at the commit, where the database can't tell whose it was. */
function waitingForSafeMode({ task, ms, traceId, logs }: Ended): Ended {
  return {
    task,
    ms,
    traceId,
    logs,
    rest: {
      id: task.id,
      claim: task.claim,
      outcome: 'returned',
      ms,
      trace: traceId,
      delay_ms: safeModeDelayMs,
      error: 'safe mode is on, nothing is written to guarded tables',
    },
  }
}

/** The simply done ones as columns, the others as they are. */
function asCall(batch: readonly Ended[]): {
  done?: { ids: string; claims: string; ms: string; traces: string }
  rest?: EndedTask[]
  logs?: LogEntry[]
} {
  const simple = batch.filter(({ rest }) => rest === null)
  const rest = batch.flatMap((one) => (one.rest === null ? [] : [one.rest]))
  const logs = batch.flatMap((one) => one.logs)
  return {
    ...(simple.length > 0
      ? {
          done: {
            ids: simple.map(({ task }) => task.id).join(','),
            claims: simple.map(({ task }) => task.claim).join(','),
            ms: simple.map(({ ms }) => ms).join(','),
            traces: simple.map(({ traceId }) => traceId ?? '').join(','),
          },
        }
      : {}),
    ...(rest.length > 0 ? { rest } : {}),
    ...(logs.length > 0 ? { logs: logs.map((entry) => ({ ...entry, message: redactText(entry.message) })) } : {}),
  }
}
