import type { ErrorCode } from '../../errors.ts'
import { TmsError } from '../../errors.ts'
import { databaseError } from '../database-error.ts'
import { OrderFailed } from './thread.ts'

/** What the operating system says about a folder, in our words. */
const byErrno: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'DISK_FULL',
  EDQUOT: 'DISK_FULL',
  EROFS: 'FILE_UNWRITABLE',
  EACCES: 'FILE_UNWRITABLE',
  EPERM: 'FILE_UNWRITABLE',
  ENOTDIR: 'FILE_UNWRITABLE',
  ENOENT: 'FILE_UNREADABLE',
  EMFILE: 'FILE_UNREADABLE',
  ENFILE: 'FILE_UNREADABLE',
  EIO: 'FILE_UNREADABLE',
}

/** Any failure of the engine as an error for a person. `what` is the function or the work that was asked for. */
export function problemOf(error: unknown, what: string): unknown {
  if (!(error instanceof OrderFailed)) return error
  const { message, sqlState, detail, hint, place, errno } = error.detail
  if (error.kind === 'timeout') {
    return new TmsError({
      code: 'DB_TIMEOUT',
      what: `The embedded database gave no answer to ${what} in time; the work was stopped.`,
      why: `It ended with its engine, which can't be interrupted: ${message}.`,
      next: ['tms status', 'tms doctor'],
    })
  }
  const fromDisk = errno === undefined ? undefined : byErrno[errno]
  // The database's disk is this machine's disk here, and Postgres often says no more than that a write failed.
  if (fromDisk && (sqlState === undefined || sqlState === '53100' || sqlState.startsWith('58'))) {
    return folderProblem(fromDisk, `The embedded database could not do ${what}.`, `${message} (${errno}).`)
  }
  if (sqlState !== undefined) return databaseError({ code: sqlState, message, detail, hint, place }, what)
  return new TmsError({
    code: 'DB_ERROR',
    what: `The embedded database broke while doing ${what}; the next call opens it again.`,
    why: `${message.split('. Build with')[0] ?? message}. When this happens at each opening, its files are damaged.`,
    next: ['tms doctor', 'mv .tms .tms.damaged  -- then restore a backup, or: tms init'],
  })
}

function folderProblem(code: ErrorCode, what: string, why: string, cause?: unknown): TmsError {
  return new TmsError(
    { code, what, why, next: code === 'DISK_FULL' ? ['df -h', 'tms doctor'] : ['tms doctor'] },
    { cause },
  )
}

/** An error of the file system around the database, in words for a person; anything else stays what it is. */
export function fileProblem(error: unknown, path: string): unknown {
  if (!(error instanceof Error && 'code' in error && typeof error.code === 'string')) return error
  const code = byErrno[error.code]
  return code
    ? folderProblem(code, `The folder ${path} can't be used.`, `The system says ${error.code}.`, error)
    : error
}
