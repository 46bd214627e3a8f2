import { isUtf8 } from 'node:buffer'
import type { Socket } from 'node:net'

/** A request may carry a 2 MB value, which JSON escapes can double. */
export const longestRequest = 4 * 1024 * 1024
/** Answers come from the owner, who is trusted more; this only bounds memory. */
export const longestAnswer = 256 * 1024 * 1024

export type LineHandlers = {
  /** Null: it isn't UTF-8, and read as if it were it would say something else. */
  readonly onLine: (line: string | null) => void
  /** Once for such a line, which is thrown away to its end. */
  readonly onTooLong: () => void
  /** The other side sends nothing more; what it sent behind the last line end was no line. */
  readonly onEnd?: (hasRest: boolean) => void
}

/** Splits what arrives into lines. */
export function readLines(socket: Socket, longest: number, handlers: LineHandlers): void {
  let parts: Buffer[] = []
  let length = 0

  function take(part: Buffer): void {
    const wasTooLong = length > longest
    length += part.length
    if (length <= longest) return void parts.push(part)
    parts = []
    if (!wasTooLong) handlers.onTooLong()
  }

  function endLine(): void {
    const line = length > longest ? undefined : Buffer.concat(parts)
    parts = []
    length = 0
    if (!line) return
    const text = isUtf8(line) ? line.toString('utf8') : null
    if (text === null || text.trim() !== '') handlers.onLine(text)
  }

  socket.on('data', (chunk: Buffer) => {
    let start = 0
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      take(chunk.subarray(start, end))
      endLine()
      start = end + 1
    }
    take(chunk.subarray(start))
  })
  socket.on('end', () => handlers.onEnd?.(length > 0 && length <= longest))
}
