import type { Server } from 'node:http'
import type { Socket } from 'node:net'

/**
 * How many connections there may be. When the house is full, whoever has been there longest without being let in goes:
 * so silent connections, however many, never keep a signed request out. A fixed limit would let the silent ones win.
 */
export type Crowd = {
  /** This one was let in: it stays until `done`. */
  working(socket: Socket): void
  done(socket: Socket): void
}

export function limitCrowd(server: Server, most: number, onPutOut: () => void): Crowd {
  const idle = new Set<Socket>()
  const busy = new Map<Socket, number>()
  server.on('connection', (socket: Socket) => {
    idle.add(socket)
    socket.once('close', () => {
      idle.delete(socket)
      busy.delete(socket)
    })
    if (idle.size + busy.size <= most) return
    const [longest] = idle
    onPutOut()
    longest?.destroy()
  })
  return {
    working(socket) {
      if (socket.destroyed) return
      idle.delete(socket)
      busy.set(socket, (busy.get(socket) ?? 0) + 1)
    },
    done(socket) {
      const more = (busy.get(socket) ?? 1) - 1
      if (more > 0) return void busy.set(socket, more)
      busy.delete(socket)
      if (!socket.destroyed) idle.add(socket)
    },
  }
}
