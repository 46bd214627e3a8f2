import type { Socket } from 'node:net'

/** A request may carry a 2 MB value, which JSON escapes can double. */
export const longestRequest = 4 * 1024 * 1024
/** Answers come from the owner, who is trusted more; this only bounds memory. */
export const longestAnswer = 256 * 1024 * 1024

/** Splits what arrives into lines; a line longer than `longest` ends the reading. */
export function readLines(
  socket: Socket,
  longest: number,
  handlers: { onLine: (line: string) => void; onTooLong: () => void },
): void {
  let parts: Buffer[] = []
  let length = 0
  let ended = false
  socket.on('data', (chunk: Buffer) => {
    let start = 0
    while (!ended) {
      const end = chunk.indexOf(10, start)
      const part = chunk.subarray(start, end < 0 ? undefined : end)
      length += part.length
      if (length > longest) {
        ended = true
        parts = []
        handlers.onTooLong()
        return
      }
      parts.push(part)
      if (end < 0) return
      const line = Buffer.concat(parts).toString('utf8')
      parts = []
      length = 0
      start = end + 1
      if (line.trim() !== '') handlers.onLine(line)
    }
  })
}
