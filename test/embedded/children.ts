import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { until } from '../servers/process.ts'

/** What child.ts says, one line each. */
export type Fact = {
  readonly opened?: true
  readonly closed?: true
  readonly answer?: Record<string, unknown>
  readonly error?: string
  readonly what?: string
  readonly why?: string
  readonly next?: readonly string[]
  readonly tag?: string
  readonly won?: number
  readonly violation?: string
}

export type Child = {
  readonly pid: number
  readonly facts: readonly Fact[]
  tell(order: object | 'close'): void
  /** Waits for a fact like that, and gives it. */
  said(what: string, like: (fact: Fact) => boolean): Promise<Fact>
  kill(signal: NodeJS.Signals): void
  /** The exit code, or the signal that ended it. */
  readonly ended: Promise<number | string>
}

/** Everything started, so that a failing test leaves no process behind. */
const started = new Set<Child>()

export function startChild(file: string, ...args: readonly (string | number)[]): Child {
  const child = spawn(process.execPath, [file, ...args.map(String)], { stdio: ['pipe', 'pipe', 'pipe'] })
  const { pid } = child
  if (pid === undefined) throw new Error('no child')
  const facts: Fact[] = []
  let errors = ''
  // The cast is true because child.ts says nothing else.
  createInterface({ input: child.stdout }).on('line', (line) => facts.push(JSON.parse(line) as Fact))
  child.stderr.on('data', (part: Buffer) => (errors += part.toString()))
  // A child that was killed doesn't read any more.
  child.stdin.on('error', () => undefined)
  let running = true
  const ended = once(child, 'close').then(([code, signal]: (number | string | null)[]) => {
    running = false
    started.delete(self)
    return code ?? signal ?? 'unknown'
  })
  const self: Child = {
    pid,
    facts,
    ended,
    tell: (order) => child.stdin.write(`${JSON.stringify(order)}\n`),
    async said(what, like) {
      await until(`${what} from ${pid}`, () => {
        if (!running && !facts.some(like)) throw new Error(`${what}: the child ended without it: ${errors}`)
        return facts.some(like)
      })
      const fact = facts.find(like)
      if (!fact) throw new Error(what)
      return fact
    },
    kill(signal) {
      if (running) process.kill(pid, signal)
    },
  }
  started.add(self)
  return self
}

export async function endChildren(): Promise<void> {
  const all = [...started]
  for (const child of all) child.kill('SIGKILL')
  await Promise.all(all.map((child) => child.ended))
}
