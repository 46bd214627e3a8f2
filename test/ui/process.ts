import { spawn, spawnSync, type ChildProcess, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'

/** Runs programs as a shell, cron or CI would: as child processes, with pipes or under a pseudo-terminal. */

export const root = fileURLToPath(new URL('../..', import.meta.url))

export type Ended = { readonly code: number | null; readonly stdout: string; readonly stderr: string }

/** No colour, no terminal, no settings of whoever runs the tests. */
const bareEnvironment = { PATH: process.env.PATH ?? '', HOME: '/nonexistent' }

export type Options = {
  readonly cwd?: string
  readonly env?: Record<string, string | undefined>
  readonly stdin?: string
}

export function start(program: readonly string[], { cwd, env }: Options = {}): ChildProcessWithoutNullStreams {
  return mortal(spawn(process.execPath, program, { cwd: cwd ?? '/', env: { ...bareEnvironment, ...env } }))
}

/** A test that fails leaves no process behind either. */
function mortal<T extends ChildProcess>(child: T): T {
  onTestFinished(() => {
    child.kill('SIGKILL')
  })
  return child
}

export async function run(program: readonly string[], options: Options = {}): Promise<Ended> {
  const child = start(program, options)
  const ended = collect(child)
  child.stdin.end(options.stdin ?? '')
  return ended
}

/** The last line of stdout. */
export function envelopeOf(stdout: string) {
  // True enough for a test: it goes on to compare what is in it.
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as {
    readonly ok: boolean
    readonly command: string
    readonly data: Readonly<Record<string, unknown>>
    readonly warnings: readonly string[]
    readonly error: unknown
  }
}

/** Everything the process says until it ends. */
export async function collect(child: ChildProcessWithoutNullStreams): Promise<Ended> {
  const stdout: Buffer[] = []
  const stderr: Buffer[] = []
  child.stdout.on('data', (part: Buffer) => stdout.push(part))
  child.stderr.on('data', (part: Buffer) => stderr.push(part))
  // An answer to a process that ended already; that is what the test is about, if anything.
  child.stdin.on('error', () => undefined)
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() }
}

/** Resolves when the stream has said `text`. */
export async function said(stream: NodeJS.ReadableStream, text: string): Promise<void> {
  let all = ''
  await new Promise<void>((resolve, reject) => {
    stream.on('data', (part: Buffer) => {
      all += part.toString()
      if (all.includes(text)) resolve()
    })
    stream.on('close', () => reject(new Error(`ended without saying ${text}: ${all}`)))
  })
}

/** Resolves when the process has used no processor time for a while: it waits for somebody. */
export async function idle(child: ChildProcess): Promise<void> {
  const used = () =>
    readFileSync(`/proc/${child.pid ?? 0}/stat`, 'utf8')
      .split(' ')
      .slice(13, 15)
      .join(' ')
  let last = ''
  for (let same = 0; same < 5;) {
    await new Promise((resolve) => setTimeout(resolve, 50))
    const now = used()
    same = now === last ? same + 1 : 0
    last = now
  }
}

/** A reason to print when there is no `script` (util-linux) to make a pseudo-terminal with. */
export const noTerminal =
  spawnSync('script', ['--version']).status === 0 ? null : '`script` of util-linux is not installed: no pseudo-terminal'

/**
 * Runs the program on a pseudo-terminal of `columns` columns. `dialogue` pairs what to wait for on the screen with what
 * to type then.
 */
export async function onTerminal(
  program: readonly string[],
  dialogue: readonly (readonly [awaited: string, typed: string])[],
  { env, cwd, columns = 80, redirect = '' }: Options & { readonly columns?: number; readonly redirect?: string } = {},
): Promise<{ readonly code: number | null; readonly screen: string }> {
  const words = [process.execPath, ...program].map((word) => `'${word}'`).join(' ')
  const command = `stty cols ${columns}; ${words} ${redirect}`
  const child = mortal(
    spawn('script', ['--quiet', '--return', '--command', command, '/dev/null'], {
      env: { ...bareEnvironment, TERM: 'xterm', ...env },
      cwd: cwd ?? '/',
    }),
  )
  let screen = ''
  let step = 0
  child.stdout.on('data', (part: Buffer) => {
    screen += part.toString()
    const [awaited, typed] = dialogue[step] ?? []
    if (awaited === undefined || typed === undefined || !screen.includes(awaited)) return
    step++
    child.stdin.write(typed)
  })
  child.stdin.on('error', () => undefined)
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, screen }
}
