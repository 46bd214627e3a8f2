import { holdsDatabase, noDatabase } from './data-directory.ts'
import type { Engine } from './engine.ts'
import { createEngine } from './engine.ts'
import type { Link, LinkOptions } from './link.ts'
import type { FreeLook, Lock } from './lock.ts'
import { isCode, newSocketPath, removeSocket, tryAcquire } from './lock.ts'
import type { SocketServer } from './server.ts'
import { serve } from './server.ts'

/** How long a closing owner works for others: what it doesn't answer, they ask of the next owner. */
const graceMs = 3_000
/** Only looking whether upkeep is due costs 15 ms of a short command's exit, so not each owner does it. */
const upkeepEvery = 16
const upkeepMs = 200
/** How long a client that doesn't read may hold up the end. */
const flushMs = 500

/** Takes the lock and serves; nothing when another process was faster. */
export async function becomeOwner(look: FreeLook, options: LinkOptions): Promise<Link | undefined> {
  // Before the lock: whoever is about to make the database must not find an owner here that only says there is none.
  if (!options.create && !holdsDatabase(options.directory)) throw noDatabase(options.directory)
  const engine = createEngine({
    ...options,
    onSignal(channel) {
      options.onSignal(channel)
      post?.server.signal(channel)
    },
    stillOwned: () => post?.lock.held() ?? true,
    onAbandoned() {
      post?.server.stopAccepting()
      void post?.server.end(0)
      options.onLost()
    },
  })
  const post = await takePost(look, options.directory, engine)
  if (!post) return undefined
  const { server, lock, socket } = post

  async function close(): Promise<void> {
    server.stopAccepting()
    // The lock goes when nothing writes any more; the connections after the lock, for their end is what sends the
    // others looking for the next owner.
    await engine.close(graceMs, lock.generation % upkeepEvery === 0 ? upkeepMs : 0)
    lock.release()
    removeSocket(options.directory, socket)
    await Promise.all([server.end(flushMs), engine.ended()])
  }

  try {
    await engine.open()
  } catch (error) {
    await close()
    throw error
  }
  return {
    call: async (fn, args, as, limitMs) =>
      JSON.parse(await engine.call(fn, JSON.stringify(args), as, limitMs)) as unknown,
    listen: engine.listen,
    transaction: engine.transaction,
    close,
  }
}

type Post = { readonly server: SocketServer; readonly lock: Lock; readonly socket: string }

/** The socket listens before the lock names it: whoever reads the lock can connect. */
async function takePost(look: FreeLook, directory: string, engine: Engine): Promise<Post | undefined> {
  const socket = newSocketPath(directory)
  let server: SocketServer | undefined
  let lock: Lock | undefined
  try {
    server = await serve(socket, engine)
    lock = tryAcquire(directory, look, socket)
    return lock && { server, lock, socket }
  } catch (error) {
    // The winner sweeps the directory, also of what this attempt has just put there.
    if (isCode(error, 'ENOENT')) return undefined
    throw error
  } finally {
    if (!lock) {
      server?.stopAccepting()
      removeSocket(directory, socket)
    }
  }
}
