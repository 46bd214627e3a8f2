import { createHash, randomUUID } from 'node:crypto'
import { mkdir, readFile, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Cell } from '../ui/blocks.ts'
import { fileProblem, writeFileAtomically } from '../files.ts'

/**
 * A file that stops this host's workers while the database can't be asked. Pressing the button writes it when the
 * database is down. A worker obeys it until the database shows that a halt was ended after it was written. Ages are
 * compared, each by the clock that knows it: the host's clock and the database's need not agree.
 *
 * Any doubt stops: a file that can't be read is obeyed, and so is any while nothing is known of a resume.
 */
export type StopNote = {
  readonly id: string
  readonly at: string
  readonly by: string
  readonly why: string
  readonly target: string
}

/** One for each database: which one is meant must be the same for whoever presses and for whoever works. */
export function stopFilePath(folder: string, target: string): string {
  return join(folder, `stop-${createHash('sha256').update(target).digest('hex').slice(0, 16)}`)
}

export async function writeStopFile(path: string, note: Omit<StopNote, 'id'>): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  } catch (error) {
    throw fileProblem(path, error)
  }
  await writeFileAtomically(path, `${JSON.stringify({ id: randomUUID(), ...note })}\n`)
}

export type StopFile = {
  readonly file: string
  /** Null: it can't be read, or doesn't say. */
  readonly at: string | null
  readonly by: string | null
  /** A resume came after it: no worker obeys it any more. */
  readonly over: boolean
}

/** What stops this host, if anything; `resumedAgoMs`: since the last resume, null when there was none or nobody knows. */
export async function readStopFile(
  path: string,
  resumedAgoMs: number | null,
  nowMs = Date.now(),
): Promise<StopFile | null> {
  let text: string
  let changedMs: number
  try {
    ;[text, { mtimeMs: changedMs }] = await Promise.all([readFile(path, 'utf8'), stat(path)])
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    return code === 'ENOENT' || code === 'ENOTDIR' ? null : { file: path, at: null, by: null, over: false }
  }
  const { at, by } = saidIn(text)
  // Somebody may have written it by hand: then the file system knows when.
  const writtenMs = at === null ? changedMs : Date.parse(at)
  return { file: path, at, by, over: resumedAgoMs !== null && resumedAgoMs < nowMs - writtenMs }
}

/** After a resume: removes the file that it ended, and answers what was there. A newer one stays in force. */
export async function endStopFile(path: string, resumedAgoMs: number | null): Promise<StopFile | null> {
  const found = await readStopFile(path, resumedAgoMs)
  if (found?.over === true) await rm(path, { force: true })
  return found
}

/** Looks at the file: must this host's workers stand still? */
export function watchStopFile(path: string): (resumedAgoMs: number | null) => Promise<boolean> {
  return async (resumedAgoMs) => (await readStopFile(path, resumedAgoMs))?.over === false
}

/** For the screens that say whether the fleet works. */
export function stopFileRows(stop: StopFile | null): readonly (readonly [string, Cell])[] {
  if (stop === null) return []
  const from = `${stop.at === null ? '' : ` since ${stop.at.slice(0, 19).replace('T', ' ')}`}${stop.by === null ? '' : ` by ${stop.by}`}`
  return [
    ['this host', stop.over ? { text: 'its stop is over', tone: 'dim' } : { text: `STOPPED${from}`, tone: 'bad' }],
    ['stop file', stop.file],
  ]
}

function saidIn(text: string): { readonly at: string | null; readonly by: string | null } {
  try {
    const said: unknown = JSON.parse(text)
    if (typeof said !== 'object' || said === null) return { at: null, by: null }
    const at = 'at' in said && typeof said.at === 'string' && !Number.isNaN(Date.parse(said.at)) ? said.at : null
    return { at, by: 'by' in said && typeof said.by === 'string' ? said.by : null }
  } catch {
    return { at: null, by: null }
  }
}
