import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { exit, TmsError } from '../errors.ts'
import type { Logger } from '../redaction/logger.ts'

/** What a process said before it ended is there at once. */
const lastWordsMs = 500
/** What a fleet's end may take beyond the grace: a handler that ignores its signal, a last call, spans that nobody takes. */
export const beyondGraceMs = 9000

export type Processes = {
  /** How many ended by an error that nobody caught, or were killed. */
  crashes(): number
  /** Rejects when none of them can work: another start would end as the first one did. */
  readonly hopeless: Promise<never>
  stop(graceMs: number): Promise<void>
}

export type ProcessesOptions = {
  readonly count: number
  readonly program: string
  readonly argv: readonly string[]
  readonly environment: NodeJS.ProcessEnv
  /** What they say line by line as JSON, without the envelope of each. */
  readonly onEntry: (entry: object) => void
  readonly log: Logger
}

/**
 * Processes of the same program, which work, while this one only looks after them: an error in an agent ends the process
 * it runs in and no other. One that ends is started again, later each time it ends early.
 */
export function startProcesses(options: ProcessesOptions): Processes {
  const { program, argv, environment, onEntry, log } = options
  const children = new Map<ChildProcess, Promise<void>>()
  const timers = new Set<NodeJS.Timeout>()
  let stopping = false
  let begun = false
  let crashes = 0
  let giveUp: (error: TmsError) => void = () => undefined
  const hopeless = new Promise<never>((_, reject) => (giveUp = reject))
  hopeless.catch(() => undefined)

  const start = (delayMs: number) => {
    const began = Date.now()
    const child = spawn(program, argv, {
      env: environment,
      // Ctrl-C reaches a whole process group, and a second signal means "at once": these get theirs from `stop` alone.
      detached: true,
      // The channel carries nothing. That it closes tells them when this process was killed and can tell them nothing.
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    })
    if (child.stdout) {
      createInterface({ input: child.stdout }).on('line', (line) => {
        const entry = entryIn(line)
        if (entry === null || !('command' in entry)) begun = true
        if (entry && !('command' in entry)) onEntry(entry)
      })
    }
    child.once('error', (error) => log.error('a worker process cannot be started', { error: error.message }))
    const end = ended(child).then(({ code, signal }) => {
      children.delete(child)
      const crashed = code === exit.bug || (signal !== null && !stopping)
      if (crashed) crashes += 1
      if (stopping) return
      if (code === exit.usage && !begun) return giveUp(unable())
      const wait = Date.now() - began > 60_000 ? 1000 : Math.min(delayMs * 2, 30_000)
      log.warn(
        crashed ? 'a worker process crashed; it is started again' : 'a worker process ended; it is started again',
        {
          process: child.pid ?? null,
          code,
          signal,
          in_ms: wait,
        },
      )
      const timer = setTimeout(() => {
        timers.delete(timer)
        start(wait)
      }, wait)
      timers.add(timer)
    })
    children.set(child, end)
  }
  for (let n = 0; n < options.count; n++) start(500)

  return {
    crashes: () => crashes,
    hopeless,
    async stop(graceMs) {
      stopping = true
      for (const timer of timers) clearTimeout(timer)
      for (const child of children.keys()) child.kill('SIGTERM')
      const late = setTimeout(() => {
        for (const child of children.keys()) child.kill('SIGKILL')
      }, graceMs + beyondGraceMs)
      await Promise.all(children.values())
      clearTimeout(late)
    },
  }
}

/**
 * Without 'close': what an agent started may hold the standard output of its process open for ever. What is in the pipe is read
 * for a moment more.
 */
async function ended(child: ChildProcess): Promise<{ readonly code: number | null; readonly signal: string | null }> {
  const end = await new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }))
    // one that could not be started
    child.once('error', () => resolve({ code: null, signal: null }))
  })
  if (child.stdout?.readableEnded === false) {
    await Promise.race([once(child.stdout, 'end'), pause(lastWordsMs, undefined, { ref: false })])
    child.stdout.destroy()
  }
  return end
}

/** For whoever started the command: what happened on the way, though the others went on. */
export function crashedOnTheWay(crashes: number): TmsError {
  return new TmsError({
    code: 'BUG',
    what: `${crashes === 1 ? 'A worker process' : `${crashes} worker processes`} crashed on the way.`,
    why: 'An error that nobody caught, or the system, ended it; it was started again, and the others went on.',
    next: ['tms agents runs', 'tms agents logs'],
  })
}

function unable(): TmsError {
  return new TmsError({
    code: 'CONFIG_INVALID',
    what: 'The worker processes could not begin.',
    why: 'The agents or the configuration are wrong; what a single one says names the file.',
    next: ['tms agents start --workers 1'],
  })
}

function entryIn(line: string): object | null {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' ? value : null
  } catch {
    return null
  }
}

/** The arguments without this option and its value: given twice it is a usage error. */
export function withoutOption(argv: readonly string[], option: string): string[] {
  return argv.filter((word, at) => word !== option && !word.startsWith(`${option}=`) && argv[at - 1] !== option)
}
