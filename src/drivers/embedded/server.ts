import { chmodSync } from 'node:fs'
import type { Socket } from 'node:net'
import { createServer } from 'node:net'
import { TmsError } from '../../errors.ts'
import type { ServiceAccount } from '../connection.ts'
import type { ContractFunction } from '../contract.ts'
import type { Channel } from '../driver.ts'
import { longestRequest, readLines } from './lines.ts'
import { answerLine, errorLine, parseRequest, signalLine } from './wire.ts'

/** What the owner's engine does for others. */
export type Handlers = {
  /** Takes and gives JSON text. */
  call(fn: ContractFunction, args: string, as?: ServiceAccount, limitMs?: number): Promise<string>
  listen(channel: Channel): Promise<void>
}

export type SocketServer = {
  signal(channel: Channel): void
  /** No new connection and no new request; what was already asked is still answered. */
  stopAccepting(): void
  /** Ends every connection, giving slow readers `graceMs` to take their answers. */
  end(graceMs: number): Promise<void>
}

/** A client beyond these isn't read from until it took its answers: it can't make the owner hold its whole backlog. */
const mostWaitingCalls = 32
const mostUnreadBytes = 1024 * 1024

type Peer = { readonly socket: Socket; readonly channels: Set<Channel>; waiting: number }

export async function serve(path: string, handlers: Handlers): Promise<SocketServer> {
  const peers = new Set<Peer>()
  let accepting = true

  const server = createServer((socket) => {
    const peer: Peer = { socket, channels: new Set(), waiting: 0 }
    peers.add(peer)
    socket.on('close', () => peers.delete(peer))
    // A client that vanishes is its own business; 'close' follows.
    socket.on('error', () => undefined)
    socket.on('drain', () => balance(peer))
    if (!accepting) return void socket.destroy()
    readLines(socket, longestRequest, {
      onLine: (line) => void answer(peer, line),
      onTooLong: () => {
        socket.end(errorLine(null, refused(`The line is longer than ${longestRequest} bytes.`)))
        // Nothing more is read, and whoever keeps sending doesn't keep the connection open.
        socket.destroySoon()
      },
    })
  })

  async function answer(peer: Peer, line: string): Promise<void> {
    const parsed = parseRequest(line)
    if ('problem' in parsed) {
      send(peer, errorLine(parsed.id, refused(parsed.problem)))
      return balance(peer)
    }
    const { request } = parsed
    peer.waiting += 1
    balance(peer)
    try {
      if ('listen' in request) {
        peer.channels.add(request.listen)
        await handlers.listen(request.listen)
        send(peer, answerLine(request.id, 'null'))
      } else {
        const { call, args, as, limit } = request
        send(peer, answerLine(request.id, await handlers.call(call, JSON.stringify(args), as, limit)))
      }
    } catch (error) {
      // Without an answer the client repeats the call with the next owner.
      if (error instanceof TmsError) send(peer, errorLine(request.id, error))
      else peer.socket.destroy()
    } finally {
      peer.waiting -= 1
      balance(peer)
    }
  }

  function send(peer: Peer, line: string): void {
    if (!peer.socket.destroyed) peer.socket.write(line)
  }

  function balance(peer: Peer): void {
    const full = peer.waiting >= mostWaitingCalls || peer.socket.writableLength > mostUnreadBytes
    if (full || !accepting) peer.socket.pause()
    else peer.socket.resume()
  }

  await new Promise<void>((listening, failed) => {
    server.once('error', failed)
    server.listen({ path, backlog: 511 }, () => listening())
  })
  // A connection that can't be accepted (no descriptor left) is no reason to end.
  server.on('error', () => undefined)
  try {
    chmodSync(path, 0o600)
  } catch (error) {
    server.close()
    throw error
  }

  return {
    signal(channel) {
      for (const peer of peers) {
        // Who didn't read yet has a signal to read anyway.
        const behind = peer.socket.writableLength > mostUnreadBytes
        if (peer.channels.has(channel) && !behind) send(peer, signalLine(channel))
      }
    },
    stopAccepting() {
      accepting = false
      server.close()
      for (const peer of peers) balance(peer)
    },
    async end(graceMs) {
      await Promise.all(
        [...peers].map(
          ({ socket }) =>
            new Promise<void>((ended) => {
              const timer = setTimeout(() => socket.destroy(), graceMs)
              socket.once('close', () => {
                clearTimeout(timer)
                ended()
              })
              socket.destroySoon()
            }),
        ),
      )
    },
  }
}

function refused(problem: string): TmsError {
  return new TmsError({
    code: 'INPUT_INVALID',
    what: 'The owner of the database refused a request on its socket.',
    why: problem,
    next: ['tms --help'],
  })
}
