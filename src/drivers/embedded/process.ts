import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'

/**
 * A process, named so that it can be recognised later: a pid alone is reused, a pid with its start time in one boot
 * isn't.
 */
export type ProcessIdentity = {
  readonly pid: number
  readonly started: string
  readonly host: string
  readonly boot: string
}

export function thisProcess(): ProcessIdentity {
  return { pid: process.pid, started: lookAt(process.pid)?.started ?? '', host: hostname(), boot: bootId() }
}

export type Sighting = { readonly started: string; readonly state: 'running' | 'stopped' | 'ended' }

/** What the operating system knows about a pid now; nothing when there is no such process. */
export function lookAt(pid: number): Sighting | undefined {
  return process.platform === 'linux' ? lookAtProc(pid) : lookAtPs(pid)
}

function lookAtProc(pid: number): Sighting | undefined {
  const stat = readIfThere(`/proc/${pid}/stat`)
  if (stat === undefined) return undefined
  // The second field is the program's name in parentheses and may itself hold spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return { started: fields[19] ?? '', state: stateOf(fields[0]) }
}

function lookAtPs(pid: number): Sighting | undefined {
  try {
    const line = execFileSync('ps', ['-o', 'state=,lstart=', '-p', String(pid)], {
      encoding: 'utf8',
      env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' },
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
    const [state, ...started] = line.split(/\s+/)
    return state ? { started: started.join(' '), state: stateOf(state) } : undefined
  } catch {
    return undefined
  }
}

function stateOf(letter: string | undefined): Sighting['state'] {
  switch (letter?.[0]) {
    case 'T':
    case 't':
      return 'stopped'
    // A process that was killed and that its parent hasn't collected yet.
    case 'Z':
    case 'X':
      return 'ended'
    default:
      return 'running'
  }
}

/** Empty where the system has no such thing: then only the host's name tells machines apart. */
export function bootId(): string {
  return readIfThere('/proc/sys/kernel/random/boot_id')?.trim() ?? ''
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
