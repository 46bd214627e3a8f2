import { TmsError } from '../errors.ts'

/** Larger is no value, token or list that tms takes. */
const limit = 16_000_000

/** Standard input as text, without the line break that `echo` adds. */
export async function readInput(signal: AbortSignal): Promise<string> {
  const parts: Buffer[] = []
  let size = 0
  const stop = () => process.stdin.destroy(asError(signal.reason))
  signal.addEventListener('abort', stop, { once: true })
  try {
    for await (const part of process.stdin as AsyncIterable<Buffer>) {
      size += part.length
      if (size > limit) throw refused('Standard input is too long.', `The limit is ${limit} bytes.`)
      parts.push(part)
    }
  } finally {
    signal.removeEventListener('abort', stop)
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(Buffer.concat(parts))
    return text.replace(/\r?\n$/, '')
  } catch {
    throw refused('Standard input is not UTF-8.', 'Values are text.')
  }
}

function refused(what: string, why: string): TmsError {
  return new TmsError({ code: 'INPUT_INVALID', what, why, next: ['file <what was piped in>'] })
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason))
}
