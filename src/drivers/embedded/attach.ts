import { setTimeout as wait } from 'node:timers/promises'
import { TmsError } from '../../errors.ts'
import { limitsFor, timeLeft } from '../patience.ts'
import { connectToOwner } from './client.ts'
import type { Link, LinkOptions } from './link.ts'
import type { Look } from './lock.ts'
import { lookAtOwner, seen } from './lock.ts'
import { fileProblem } from './problem.ts'

/** Long enough not to be busy, short enough not to be noticed when an owner hands over. */
const pollMs = 10

/** Becomes the owner or finds one, within the time of one call. */
export async function attach(options: LinkOptions, mustOwn: boolean): Promise<Link> {
  const limits = limitsFor(options.callTimeoutMs)
  try {
    for (;;) {
      const look = await lookAtOwner(options.directory)
      const link = await tryLook(look, options, mustOwn)
      if (link) return link
      if (timeLeft(limits) < 0 || look.state === 'unknown') throw ownerBusy(options.directory, look)
      await wait(pollMs)
    }
  } catch (error) {
    throw fileProblem(error, options.directory)
  }
}

async function tryLook(look: Look, options: LinkOptions, mustOwn: boolean): Promise<Link | undefined> {
  switch (look.state) {
    case 'unknown':
      return undefined
    case 'owned':
      return mustOwn ? undefined : connectToOwner(look.socket, options)
    case 'free': {
      // Imported here, so that a process that only talks to an owner loads none of it.
      const { becomeOwner } = await import('./owner.ts')
      return becomeOwner(look, options)
    }
  }
}

function ownerBusy(directory: string, look: Look): TmsError {
  switch (look.state) {
    case 'owned':
      return new TmsError({ code: 'OWNER_BUSY', ...describeOwner(look.record.pid, look.record.started, directory) })
    case 'unknown':
      return new TmsError({
        code: 'OWNER_BUSY',
        what: `The database in ${directory} may be owned by a process that can't be seen from here.`,
        why: look.why,
        next: [`rm ${look.file}   # only after making sure that this process has ended`],
      })
    case 'free':
      return new TmsError({
        code: 'OWNER_BUSY',
        what: `The database in ${directory} changed hands all the time; this process never got a turn.`,
        why: 'Many processes want to own it at once.',
        next: ['tms up'],
      })
  }
}

/** Why this process has to wait for another one, as far as a lock file and the system can tell. */
export async function describeWait(
  directory: string,
): Promise<{ what: string; why: string; next: string[] } | undefined> {
  const look = await lookAtOwner(directory)
  if (look.state !== 'owned' || look.record.pid === process.pid) return undefined
  return describeOwner(look.record.pid, look.record.started, directory)
}

function describeOwner(pid: number, started: string, directory: string): { what: string; why: string; next: string[] } {
  const stopped = seen({ pid, started })?.state === 'stopped'
  return {
    what: `Process ${pid} owns the database in ${directory}.`,
    why: stopped
      ? 'That process is stopped, so it answers nobody.'
      : 'It runs and kept the database for the whole time.',
    next: stopped ? [`kill -CONT ${pid}`, `kill ${pid}`] : [`ps -fp ${pid}`, `kill ${pid}`],
  }
}
