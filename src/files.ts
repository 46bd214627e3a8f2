import { randomBytes } from 'node:crypto'
import { link, lstat, open, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { TmsError } from './errors.ts'

/**
 * Writes a file whole or not at all: under a temporary name in the same folder, synced, then renamed. A killed run leaves
 * a temporary file at worst, never half of the real one. `from`: another folder of that disk for the temporary one, where a
 * leftover would be taken for something.
 */
export async function writeFileAtomically(
  path: string,
  content: Content,
  { mode = 0o644, from = dirname(path) }: { readonly mode?: number; readonly from?: string } = {},
): Promise<void> {
  await refuseOddTarget(path)
  await written(path, content, { mode, from }, (temporary) => rename(temporary, path))
}

/** The same, and never over what is there: EEXIST is for whoever knows what that means. */
export async function writeNewFile(path: string, content: Content): Promise<void> {
  await written(path, content, { mode: 0o644, from: dirname(path) }, async (temporary) => {
    await link(temporary, path)
    await rm(temporary)
  })
}

/** In parts where it is too large to be held at once. */
type Content = string | Uint8Array | AsyncIterable<string>

async function written(
  path: string,
  content: Content,
  { mode, from }: { readonly mode: number; readonly from: string },
  put: (temporary: string) => Promise<void>,
): Promise<void> {
  const temporary = join(from, `${basename(path)}.${randomBytes(6).toString('hex')}.tmp`)
  try {
    const file = await open(temporary, 'wx', mode)
    try {
      if (typeof content === 'string' || content instanceof Uint8Array) await file.writeFile(content)
      else for await (const part of content) await file.writeFile(part)
      await file.sync()
    } finally {
      await file.close()
    }
    await put(temporary)
    await syncFolder(dirname(path))
  } catch (error) {
    await rm(temporary, { force: true })
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') throw error
    throw fileProblem(path, error)
  }
}

/**
 * Renaming puts an ordinary file in the place of whatever is there: /dev/null would be one then for everybody, and a link
 * would no longer lead to what it named.
 */
export async function refuseOddTarget(path: string): Promise<void> {
  const there = await lstat(path).catch(() => null)
  if (there === null || there.isFile()) return
  const kind = there.isDirectory() ? 'a folder' : there.isSymbolicLink() ? 'a symbolic link' : 'no ordinary file'
  throw new TmsError({
    code: 'INPUT_INVALID',
    what: `${path} is ${kind}, and can't be replaced`,
    why: 'files are written whole, under another name first, and then take the place of the old one; nothing was changed',
    next: [`ls -ld ${path}`],
  })
}

/** The rename itself must survive a power loss too. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** What the system said about writing here, as something a person can act on. */
export function fileProblem(path: string, error: unknown): TmsError {
  if (error instanceof TmsError) return error
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  const full = code === 'ENOSPC' || code === 'EDQUOT'
  return new TmsError(
    {
      code: full ? 'DISK_FULL' : 'FILE_UNWRITABLE',
      what: full ? `there is no room to write ${path}` : `${path} can't be written`,
      why: full
        ? 'the disk or the quota is full; nothing was changed'
        : `the system says ${code || String(error)}; nothing was changed`,
      next: [full ? `df -h ${dirname(path)}` : `ls -ld ${dirname(path)}`],
    },
    { cause: error },
  )
}
