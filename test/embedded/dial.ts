import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

export type Reply = {
  readonly id: number | null
  readonly error?: { readonly code: string; readonly why: string }
  readonly answer?: unknown
}

/** A bare connection to the socket of a directory's owner, as any process of this user can make one. */
export async function dial(directory: string): Promise<Socket> {
  const name = readdirSync(directory).find((file) => file.endsWith('.sock'))
  const socket = connect(join(directory, name ?? ''))
  await once(socket, 'connect')
  socket.on('error', () => undefined)
  return socket
}

export function repliesOn(socket: Socket): readonly Reply[] {
  const replies: Reply[] = []
  createInterface({ input: socket }).on('line', (line) => {
    const reply: Reply = JSON.parse(line)
    replies.push(reply)
  })
  return replies
}
