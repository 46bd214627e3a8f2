import type { Socket } from 'node:net'
import { connect } from 'node:net'
import type { ServiceAccount } from '../connection.ts'
import type { ContractFunction } from '../contract.ts'
import type { Channel } from '../driver.ts'
import { longestAnswer, readLines } from './lines.ts'
import { OwnerLost } from './owner-lost.ts'
import { parseReply } from './wire.ts'

export type SocketClient = {
  call(fn: ContractFunction, args: object, as?: ServiceAccount, limitMs?: number): Promise<unknown>
  listen(channel: Channel): Promise<void>
  close(): Promise<void>
}

type Waiting = { readonly resolve: (answer: unknown) => void; readonly reject: (error: Error) => void }

/** Connects to an owner's socket; nothing when nobody listens there any more. */
export async function connectToOwner(
  path: string,
  events: { onSignal: (channel: Channel) => void; onLost: () => void },
): Promise<SocketClient | undefined> {
  const socket = await connected(path)
  return socket && clientOver(socket, events)
}

function clientOver(
  socket: Socket,
  events: { onSignal: (channel: Channel) => void; onLost: () => void },
): SocketClient {
  const waiting = new Map<number, Waiting>()
  let lastId = 0

  readLines(socket, longestAnswer, { onLine: receive, onTooLong: () => socket.destroy() })
  socket.on('close', () => {
    for (const { reject } of waiting.values()) reject(new OwnerLost())
    waiting.clear()
    events.onLost()
  })

  function receive(line: string | null): void {
    let reply
    try {
      reply = parseReply(line ?? '')
    } catch {
      // Not our protocol: whoever that is, it isn't an owner that could answer.
      return void socket.destroy()
    }
    if ('signal' in reply) return events.onSignal(reply.signal)
    const waiter = reply.id === null ? undefined : waiting.get(reply.id)
    if (!waiter || reply.id === null) return
    waiting.delete(reply.id)
    if ('error' in reply) waiter.reject(reply.error)
    else waiter.resolve(reply.answer)
  }

  function ask(request: object): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (socket.destroyed) return reject(new OwnerLost())
      const id = (lastId += 1)
      waiting.set(id, { resolve, reject })
      socket.write(`${JSON.stringify({ id, ...request })}\n`)
    })
  }

  return {
    call: (fn, args, as, limit) => ask({ call: fn, args, as, limit }),
    listen: async (channel) => {
      await ask({ listen: channel })
    },
    close: async () => {
      socket.destroy()
    },
  }
}

function connected(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.on('error', () => resolve(undefined))
    socket.once('connect', () => resolve(socket))
  })
}
