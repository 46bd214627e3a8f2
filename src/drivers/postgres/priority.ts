import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { constants, setPriority } from 'node:os'
import type pg from 'pg'

/**
 * The server's process of this session goes before those of others: whoever halts a machine that is too busy must not wait in
 * the crowd that it halts. Where that process is on this machine, and the system lets this user do it; else it waits its turn.
 */
export function bringForward(client: pg.Client): void {
  // True of `pg`: the number comes with the server's greeting, and the stream is the socket that the endpoint made.
  const { processID, connection } = client as unknown as { processID: number; connection: { stream: Socket } }
  try {
    // Elsewhere, in a container or behind a pooler, the number is somebody else's: the server's title of it must name this connection.
    const { localPort } = connection.stream
    const title = readFileSync(`/proc/${processID}/cmdline`, 'utf8')
    if (title.startsWith('postgres: ') && title.includes(localPort === undefined ? '[local]' : `(${localPort})`))
      setPriority(processID, constants.priority.PRIORITY_HIGHEST)
  } catch {
    // No such process here, or not ours to move.
  }
}
