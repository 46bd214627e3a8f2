import { chmodSync } from 'node:fs'
import type { Socket } from 'node:net'
import { createServer } from 'node:net'
import { TmsError } from '../../errors.ts'
import type { ServiceAccount } from '../connection.ts'
import type { ContractFunction } from '../contract.ts'
import type { Channel } from '../driver.ts'
import { longestRequest, readLines } from './lines.ts'
import { OwnerLost } from './owner-lost.ts'
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

type Peer = {
  readonly socket: Socket
  readonly channels: Set<Channel>
  /** The ids of its requests that are not answered yet. */
  readonly waiting: Set<number>
  /** It sends nothing more, and still waits for its answers. */
  said: boolean
}

export async function serve(path: string, handlers: Handlers): Promise<SocketServer> {
  const peers = new Set<Peer>()
  let accepting = true

  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const peer: Peer = { socket, channels: new Set(), waiting: new Set(), said: false }
    peers.add(peer)
    socket.on('close', () => peers.delete(peer))
    // A client that vanishes is its own business; 'close' follows.
    socket.on('error', () => undefined)
    socket.on('drain', () => balance(peer))
    if (!accepting) return void socket.destroy()
    readLines(socket, longestRequest, {
      onLine: (line) => void answer(peer, line),
      onTooLong: () => refuse(peer, null, `The line is longer than ${longestRequest} bytes.`),
      onEnd: (hasRest) => {
        if (hasRest) refuse(peer, null, 'The last line has no end.')
        peer.said = true
        balance(peer)
      },
    })
  })

  async function answer(peer: Peer, line: string | null): Promise<void> {
    const parsed = parseRequest(line)
    if ('problem' in parsed) return refuse(peer, parsed.id, parsed.problem)
    const { request } = parsed
    // An error with this id would be taken for the answer to the first one.
    if (peer.waiting.has(request.id))
      return refuse(peer, null, `The request before it with id ${request.id} has no answer yet.`)
    peer.waiting.add(request.id)
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
      if (error instanceof OwnerLost) peer.socket.destroy()
      else send(peer, errorLine(request.id, error instanceof TmsError ? error : unexpected(error)))
    } finally {
      peer.waiting.delete(request.id)
      balance(peer)
    }
  }

  function refuse(peer: Peer, id: number | null, problem: string): void {
    send(peer, errorLine(id, refused(problem)))
    balance(peer)
  }

  function send(peer: Peer, line: string): void {
    if (peer.socket.writable) peer.socket.write(line)
  }

  function balance(peer: Peer): void {
    if (peer.said && peer.waiting.size === 0) peer.socket.end()
    const full = peer.waiting.size >= mostWaitingCalls || peer.socket.writableLength > mostUnreadBytes
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

function unexpected(error: unknown): TmsError {
  return new TmsError(
    {
      code: 'BUG',
      what: 'The owner of the database failed at a request on its socket.',
      why: error instanceof Error ? error.message : String(error),
      next: ['TMS_DEBUG=1 tms doctor'],
    },
    { cause: error },
  )
}
