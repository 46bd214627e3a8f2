import { connect } from 'node:net'

/** Node cuts longer paths without a word (sun_path holds 108 bytes on Linux, 104 on macOS). */
export function fitsSocketPath(path: string): boolean {
  return Buffer.byteLength(path) <= 100
}

/**
 * Whether somebody listens there. Only "nobody" is a no: a full backlog (EAGAIN) or a forbidden socket belongs to a
 * living process, also when that process is stopped.
 */
export function canConnect(path: string): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      done(true)
    })
    socket.once('error', (error) =>
      done(!('code' in error && (error.code === 'ECONNREFUSED' || error.code === 'ENOENT'))),
    )
  })
}
