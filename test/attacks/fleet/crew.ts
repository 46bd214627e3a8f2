import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { setTimeout as pause } from 'node:timers/promises'
import { build } from 'esbuild'
import { startProcess, until, type ServerProcess } from '../../servers/process.ts'

/** Worker processes that a supervisor starts again, and that anything may happen to. */
export type Crew = {
  /** Ends one at random; a new one takes its place. Null when there is none to be had. */
  strike(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null>
  /** One at random stands still until `thaw`. Nobody else strikes it. */
  freeze(): { readonly pid: number; thaw(): void } | null
  /** Ends that nobody asked for, with the last words; being unable to reach the database at the start is none. */
  readonly fell: readonly string[]
  /** Lines of the logs with level error. */
  readonly complaints: readonly string[]
  /** Those that could not sign off, killed or without a database since their start: what they hold is theirs until their leases end. */
  readonly cutOff: readonly number[]
  readonly counts: { started: number; killed: number; asked: number; turnedAway: number; frozen: number }
  stop(): Promise<void>
}

type Member = { readonly process: ServerProcess; struck: boolean; frozen: boolean }

export async function startCrew(options: {
  readonly count: number
  readonly env: Readonly<Record<string, string>>
}): Promise<Crew> {
  const folder = await mkdtemp(join(tmpdir(), 'tms-crew-'))
  const program = join(folder, 'crew.mjs')
  await bundle(program)
  const members = new Set<Member>()
  const ends = new Set<Promise<void>>()
  const fell: string[] = []
  const complaints: string[] = []
  const cutOff: number[] = []
  const counts = { started: 0, killed: 0, asked: 0, turnedAway: 0, frozen: 0 }
  let stopping = false

  async function begin(): Promise<void> {
    const directory = await mkdtemp(join(tmpdir(), 'tms-crew-'))
    const process = startProcess({
      command: globalThis.process.execPath,
      args: [program],
      directory,
      stopSignal: 'SIGKILL',
      env: { PATH: globalThis.process.env['PATH'] ?? '', ...options.env },
    })
    counts.started++
    const member = { process, struck: false, frozen: false }
    members.add(member)
    const end = process.exited.then(() => ended(member))
    ends.add(end)
    void end.finally(() => ends.delete(end))
  }

  async function ended(member: Member): Promise<void> {
    members.delete(member)
    const log = await member.process.log()
    complaints.push(...log.split('\n').filter((line) => line.includes('"level":"error"')))
    if (!member.struck) {
      if (!/^ready$/m.test(log) && /DB_UNREACHABLE|DB_TIMEOUT|DB_BUSY/.test(log)) {
        counts.turnedAway++
        cutOff.push(member.process.pid)
      } else fell.push(log.slice(-2000))
    }
    await member.process.stop()
    if (stopping) return
    if (!member.struck) await pause(200)
    await begin()
  }

  const some = (): Member | undefined => {
    const free = [...members].filter(({ struck, frozen }) => !struck && !frozen)
    return free[Math.floor(Math.random() * free.length)]
  }
  await Promise.all(Array.from({ length: options.count }, begin))

  return {
    fell,
    complaints,
    cutOff,
    counts,
    async strike(signal) {
      const member = some()
      if (!member) return null
      member.struck = true
      counts[signal === 'SIGKILL' ? 'killed' : 'asked']++
      if (signal === 'SIGKILL') cutOff.push(member.process.pid)
      member.process.kill(signal)
      if (signal === 'SIGKILL') await member.process.exited
      return member.process.pid
    },
    freeze() {
      const member = some()
      if (!member) return null
      member.frozen = true
      counts.frozen++
      member.process.kill('SIGSTOP')
      return {
        pid: member.process.pid,
        thaw: () => {
          member.process.kill('SIGCONT')
          member.frozen = false
        },
      }
    },
    async stop() {
      stopping = true
      for (const member of members) {
        member.struck = true
        member.process.kill('SIGCONT')
        member.process.kill('SIGTERM')
      }
      try {
        await until('the crew has signed off', () => members.size === 0)
      } finally {
        for (const { process } of members) process.kill('SIGKILL')
        await Promise.all(ends)
        await rm(folder, { recursive: true, force: true })
      }
    },
  }
}

async function bundle(outfile: string): Promise<void> {
  const here = pathToFileURL(join(import.meta.dirname, 'crew.ts')).href
  await build({
    entryPoints: [join(import.meta.dirname, 'crew-process.ts')],
    outfile,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    // Some packages are CommonJS and ask for Node's own modules.
    banner: {
      js: `import { createRequire as __r } from 'node:module'; const require = __r(${JSON.stringify(here)});`,
    },
    external: ['pg-native'],
    logLevel: 'warning',
  })
}
