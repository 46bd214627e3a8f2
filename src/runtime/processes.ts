import { spawn, type ChildProcess } from 'node:child_process'
import type { Logger } from '../redaction/logger.ts'

export type Processes = { stop(graceMs: number): Promise<void> }

/** More processes of the same program. One that dies is started again, later each time it dies early. */
export function startProcesses(options: {
  readonly count: number
  readonly program: string
  readonly argv: readonly string[]
  readonly environment: NodeJS.ProcessEnv
  readonly log: Logger
}): Processes {
  const { program, argv, environment, log } = options
  const children = new Set<ChildProcess>()
  const timers = new Set<NodeJS.Timeout>()
  let stopping = false

  const start = (delayMs: number) => {
    const began = Date.now()
    const child = spawn(program, argv, {
      env: environment,
      // Ctrl-C reaches a whole process group, and a second signal means "at once": these get theirs from `stop` alone.
      detached: true,
      // The channel carries nothing. That it closes tells them when this process was killed and can tell them nothing.
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
    children.add(child)
    child.once('error', (error) => log.error('a worker process cannot be started', { error: error.message }))
    child.once('close', (code, signal) => {
      children.delete(child)
      if (stopping) return
      const wait = Date.now() - began > 60_000 ? 1000 : Math.min(delayMs * 2, 30_000)
      log.warn('a worker process ended; it is started again', { code, signal, in_ms: wait })
      const timer = setTimeout(() => {
        timers.delete(timer)
        start(wait)
      }, wait)
      timers.add(timer)
    })
  }
  for (let n = 0; n < options.count; n++) start(500)

  return {
    async stop(graceMs) {
      stopping = true
      for (const timer of timers) clearTimeout(timer)
      const ends = [...children].map(
        (child) => new Promise<void>((resolve) => void child.once('close', () => resolve())),
      )
      for (const child of children) child.kill('SIGTERM')
      const late = setTimeout(() => {
        for (const child of children) child.kill('SIGKILL')
      }, graceMs + 5000)
      await Promise.all(ends)
      clearTimeout(late)
    },
  }
}

/** The arguments without this option and its value: given twice it is a usage error. */
export function withoutOption(argv: readonly string[], option: string): string[] {
  return argv.filter((word, at) => word !== option && !word.startsWith(`${option}=`) && argv[at - 1] !== option)
}
