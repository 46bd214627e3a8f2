import { spawn, spawnSync } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

export type User = { readonly uid: number; readonly gid: number }

export type ServerProcess = {
  readonly pid: number
  /** Everything the server wrote so far, both streams. */
  log(): Promise<string>
  running(): boolean
  kill(signal: NodeJS.Signals): void
  /** Resolves when the process is gone, however it went. */
  readonly exited: Promise<void>
  /** Kills it, waits, and removes its folder. */
  stop(): Promise<void>
}

/**
 * Waits until nobody holds the other end of its standard input, which also happens when the test process is killed
 * with -9 and no exit handler runs; then ends the server and removes its folder. Being told `done` means that the
 * process was waited for already: its pid may belong to somebody else by then.
 */
const watchdog = `
read -r word && [ "$word" = done ] && exit 0
kill -"$2" "$1"
n=0; while kill -0 "$1" 2>/dev/null && [ "$n" -lt 100 ]; do sleep 0.05; n=$((n+1)); done
kill -KILL "$1" 2>/dev/null
rm -rf "$3"
`

/** Starts a server that cannot outlive this process. `directory` belongs to the server and goes away with it. */
export function startProcess(options: {
  command: string
  args: readonly string[]
  directory: string
  stopSignal: NodeJS.Signals
  env?: NodeJS.ProcessEnv
  user?: User | undefined
}): ServerProcess {
  const { directory, stopSignal, user } = options
  const logFile = `${directory}/server.log`
  const log = openSync(logFile, 'a', 0o644)
  // Detached: Ctrl-C goes to the whole process group, and the server must see the signal meant for it instead.
  const child = spawn(options.command, options.args, {
    ...user,
    cwd: directory,
    detached: true,
    env: options.env ?? process.env,
    stdio: ['ignore', log, log],
  })
  closeSync(log)
  const pid = child.pid
  if (pid === undefined) {
    child.on('error', () => undefined)
    throw new Error(`cannot start ${options.command}`)
  }
  const guard = spawn('/bin/sh', ['-c', watchdog, 'watchdog', String(pid), stopSignal.replace(/^SIG/, ''), directory], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  guard.stdin.on('error', () => undefined)

  let running = true
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => {
      running = false
      resolve()
    })
  })
  child.unref()
  guard.unref()

  return {
    pid,
    exited,
    log: () => readFile(logFile, 'utf8'),
    running: () => running,
    kill: (signal) => {
      if (running) process.kill(pid, signal)
    },
    stop: async () => {
      child.ref()
      if (running) process.kill(pid, stopSignal)
      await exited
      await rm(directory, { recursive: true, force: true, maxRetries: 5 })
      guard.stdin.end('done\n')
    },
  }
}

/** Another process may take it before the server does; the starters below try again with another one then. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

/** Polls until the check holds, and says what it waited for when it doesn't in time. */
export async function until(
  what: string,
  check: () => boolean | Promise<boolean>,
  // Only what hangs should meet it: a busy machine takes ten times what a quiet one does.
  milliseconds = 60_000,
): Promise<void> {
  const deadline = Date.now() + milliseconds
  while (!(await check())) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${milliseconds} ms`)
    await pause(20)
  }
}

/** The reason to skip what needs a program that isn't here, printed once for each file that asks; else undefined. */
export function missing(program: string): string | undefined {
  if (!spawnSync(program, ['--version']).error) return undefined
  const reason = `${program} is not installed here`
  process.stderr.write(`skipping the tests that need it: ${reason}\n`)
  return reason
}
