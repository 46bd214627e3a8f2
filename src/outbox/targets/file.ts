import { constants } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'
import { parseTargetConfig } from './config.ts'
import { withDeadline } from './deadline.ts'
import type { Event, Outcome, Target } from './target.ts'
import { eventBody } from './webhook.ts'

const schema = z.strictObject({
  /** One name and no path, so it can't lead out of the folder. */
  file: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$/, 'takes a file name: letters, digits, ".", "_" and "-", and no folder'),
})

type FileConfig = z.output<typeof schema>
export type OpenFile = (path: string, flags: number, mode?: number) => Promise<FileHandle>

/**
 * One line of JSON per delivery at the end of a file, on the disk before it counts as delivered. Readers skip lines that
 * are empty or no JSON (what a crash left), and take each delivery id once.
 */
export function fileTarget(openFile: OpenFile): Target<FileConfig> {
  return {
    kind: 'file',
    parseConfig: (raw) => parseTargetConfig('file', '{ file: "events.jsonl" }', schema, raw),
    async send({ file }, _, event, context) {
      const ended = await withDeadline(context, () => append(openFile, context.folder, file, event))
      if ('value' in ended) return ended.value
      return ended.cut === 'stopped'
        ? { kind: 'retry', why: 'the worker was stopped before the line was on the disk' }
        : { kind: 'retry', why: `it took longer than ${context.timeoutMs} ms: the disk is slow or hangs` }
    },
  }
}

export const file: Target<FileConfig> = fileTarget(open)

/** No link is followed out of the folder. Reading and writing: opened for writing alone a named pipe would wait for a reader. */
const flags = constants.O_RDWR | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW

async function append(openFile: OpenFile, folder: string, name: string, event: Event): Promise<Outcome> {
  let handle: FileHandle | null = null
  try {
    handle = await openFile(join(folder, name), flags, 0o600)
    const stat = await handle.stat()
    if (!stat.isFile()) return { kind: 'rejected', why: `${name} is not an ordinary file` }
    const torn = stat.size > 0 && !(await endsWithNewline(handle, stat.size))
    const line = Buffer.from(`${torn ? '\n' : ''}${eventBody(event)}\n`)
    // One write: the system appends it in one piece, also when another process writes at the same time.
    const { bytesWritten } = await handle.write(line)
    if (bytesWritten < line.length) return { kind: 'retry', why: 'the disk took only a part of the line' }
    await handle.sync()
    if (stat.size === 0) await syncFolder(openFile, folder)
    return { kind: 'delivered', ...(torn ? { note: 'the line before was torn, and is closed now' } : {}) }
  } catch (error) {
    return problem(name, error)
  } finally {
    // What matters was synced.
    await handle?.close().catch(() => undefined)
  }
}

async function endsWithNewline(handle: FileHandle, size: number): Promise<boolean> {
  const last = Buffer.alloc(1)
  await handle.read(last, 0, 1, size - 1)
  return last[0] === 0x0a
}

/** A new file must not vanish with a power loss after it was said to be written. */
async function syncFolder(openFile: OpenFile, folder: string): Promise<void> {
  const handle = await openFile(folder, constants.O_RDONLY)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

function problem(name: string, error: unknown): Outcome {
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown'
  if (code === 'ELOOP') return { kind: 'rejected', why: `${name} is a symbolic link: not followed` }
  if (code === 'EISDIR') return { kind: 'rejected', why: `${name} is not an ordinary file` }
  // A full disk, a missing folder, wrong rights: somebody mends it, and then it works.
  return { kind: 'retry', why: `${name} can't be written (${code})` }
}
