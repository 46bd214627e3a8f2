import { createEngine } from './engine.ts'
import type { Link, LinkOptions } from './link.ts'
import type { Look } from './lock.ts'
import { newSocketPath, removeSocket, tryAcquire } from './lock.ts'
import { serve } from './server.ts'

/** How long a closing owner works for others: what it doesn't answer, they ask of the next owner. */
const graceMs = 3_000
/** How long a client that doesn't read may hold up the end. */
const flushMs = 500

/** Takes the lock and serves; nothing when another process was faster. */
export async function becomeOwner(look: Look & { state: 'free' }, options: LinkOptions): Promise<Link | undefined> {
  const { directory } = options
  const engine = createEngine({
    ...options,
    onSignal(channel) {
      options.onSignal(channel)
      server.signal(channel)
    },
  })
  // The socket listens before the lock names it: whoever reads the lock can connect.
  const socket = newSocketPath(directory)
  const server = await serve(socket, engine)
  const lock = tryAcquire(directory, look, socket)
  if (!lock) {
    server.stopAccepting()
    removeSocket(directory, socket)
    return undefined
  }

  async function close(): Promise<void> {
    server.stopAccepting()
    // The lock goes after the thread, which may still write; the connections after the lock, for their end is what
    // sends the others looking for the next owner.
    await engine.close(graceMs)
    lock?.release()
    removeSocket(directory, socket)
    await server.end(flushMs)
  }

  try {
    await engine.open()
  } catch (error) {
    await close()
    throw error
  }
  return {
    call: async (fn, args) => JSON.parse(await engine.call(fn, JSON.stringify(args))) as unknown,
    listen: engine.listen,
    transaction: engine.transaction,
    close,
  }
}
