import { createHash, randomUUID } from 'node:crypto'
import { mkdir, open, readFile, readdir, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { fileProblem, writeFileAtomically } from '../files.ts'

/**
 * A file that stops this host's workers while the database can't be asked. Pressing the button writes it when the
 * database is down. A worker obeys it until the database shows that a later halt was ended: the epoch it knew when it
 * first saw the file has passed.
 *
 * Any doubt stops: a file that can't be read is obeyed.
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

/** After a resume: it has done its work. What the workers noted about it goes too. */
export async function removeStopFile(path: string): Promise<boolean> {
  const there = await readFile(path).then(
    () => true,
    () => false,
  )
  await rm(path, { force: true })
  const beside = await readdir(dirname(path)).catch(() => [])
  for (const name of beside) {
    if (name.startsWith(`${basename(path)}.`)) await rm(join(dirname(path), name), { force: true })
  }
  return there
}

/**
 * Looks at the file: must this host's worker stand still? `epoch` is the fence's as the database last said it, null
 * before it has. The first worker that sees the file notes the epoch beside it, for those that start later.
 */
export function watchStopFile(path: string): (epoch: number | null) => Promise<boolean> {
  let seen: { readonly id: string; readonly epoch: number } | null = null
  return async (epoch) => {
    let id: string
    try {
      id = idOf(await readFile(path, 'utf8'))
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined
      return code !== 'ENOENT' && code !== 'ENOTDIR'
    }
    if (seen?.id !== id) {
      const noted = await notedEpoch(path, id, epoch)
      if (noted === null) return true
      seen = { id, epoch: noted }
    }
    return epoch === null || epoch <= seen.epoch
  }
}

function idOf(text: string): string {
  // Somebody may have written it by hand: then all of it is its name.
  const found = /"id":"([0-9a-f-]{36})"/.exec(text)
  return found?.[1] ?? createHash('sha256').update(text).digest('hex').slice(0, 36)
}

async function notedEpoch(path: string, id: string, epoch: number | null): Promise<number | null> {
  const beside = `${path}.${id}`
  const read = async () => {
    const text = await readFile(beside, 'utf8').catch(() => '')
    return /^\d{1,15}\n$/.test(text) ? Number(text) : null
  }
  const noted = await read()
  if (noted !== null || epoch === null) return noted
  try {
    const file = await open(beside, 'wx')
    await file.writeFile(`${epoch}\n`)
    await file.close()
    return epoch
  } catch {
    // Another worker was first, or the folder can't be written: then this one remembers it for itself.
    return (await read()) ?? epoch
  }
}
