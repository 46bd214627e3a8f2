import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import * as z from 'zod'
import { TmsError } from '../errors.ts'

/**
 * The secrets of the keys that this host accepts. They live at the door and nowhere else: the database knows a key's id,
 * its age, its end and a hash of its secret. Both must agree before anybody comes in.
 */
export type KeyRing = ReadonlyMap<string, Key>
export type Key = { readonly secret: string; readonly sha256: string }

export type KeySource =
  | { readonly kind: 'variable'; readonly name: string; readonly text: string }
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'command'; readonly command: string }

/** `openssl rand -hex 16` is the least; `tms accounts rotate` makes 43 characters. */
const shortestSecret = 32
const commandMs = 10_000
const mostBytes = 1024 * 1024

export async function readKeys(source: KeySource): Promise<KeyRing> {
  switch (source.kind) {
    case 'variable':
      return parseKeys(source.text, source.name)
    case 'file':
      return parseKeys(await readPrivately(source.path), source.path)
    case 'command':
      return parseKeys(await outputOf(source.command), 'the output of the keys command')
  }
}

/** One JSON object of ids and secrets, or a line `id=secret` for each. What is wrong is named by its line, never quoted. */
export function parseKeys(text: string, where: string): KeyRing {
  const entries = text.trimStart().startsWith('{') ? fromJson(text, where) : fromLines(text, where)
  const ring = new Map<string, Key>()
  for (const { id, secret, place } of entries) {
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(id)) throw invalid(`${place} has no usable key id`, idShape)
    if (ring.has(id)) throw invalid(`${place} gives key ${id} a second time`, 'a new secret comes with a new key id')
    if (secret.length < shortestSecret || !/^[\x21-\x7e]+$/.test(secret)) {
      throw invalid(`the secret at ${place} is not usable`, `it takes at least ${shortestSecret} printable characters`)
    }
    ring.set(id, { secret, sha256: createHash('sha256').update(secret).digest('hex') })
  }
  if (ring.size === 0) throw invalid(`${where} holds no key`, 'without one nobody could be let in')
  return ring
}

const idShape = 'it takes letters, digits, ".", "_" and "-", at most 64'

type Entry = { readonly id: string; readonly secret: string; readonly place: string }

function fromJson(text: string, where: string): Entry[] {
  let content: unknown
  try {
    content = JSON.parse(text)
  } catch {
    // What JSON.parse says quotes the text.
    throw invalid(`${where} is not JSON`, 'it starts with { and cannot be read to its end')
  }
  const parsed = z.record(z.string(), z.string()).safeParse(content)
  if (!parsed.success) throw invalid(`${where} is no list of keys`, 'it takes {"<key id>": "<secret>", …}')
  return Object.entries(parsed.data).map(([id, secret], index) => ({ id, secret, place: `${where}, key ${index + 1}` }))
}

function fromLines(text: string, where: string): Entry[] {
  return text.split(/\r?\n/).flatMap((line, index) => {
    const place = `${where}, line ${index + 1}`
    if (line.trim() === '' || line.trimStart().startsWith('#')) return []
    const [, id, secret] = /^([^=]*)=(.*)$/.exec(line) ?? []
    if (id === undefined || secret === undefined) throw invalid(`${place} is no key`, 'it takes <key id>=<secret>')
    return [{ id: id.trim(), secret: secret.trim(), place }]
  })
}

/** Whoever can read the file can knock as its owner: so nobody else may. Looked at through the open file, not by its name. */
async function readPrivately(path: string): Promise<string> {
  let file: Awaited<ReturnType<typeof open>>
  try {
    file = await open(path, 'r')
  } catch (cause) {
    throw unreadable(path, cause)
  }
  try {
    const { mode, size } = await file.stat()
    if ((mode & 0o077) !== 0) {
      throw new TmsError({
        code: 'CONFIG_INVALID',
        what: `${path} holds secrets and others can read or change it`,
        why: `its mode is ${(mode & 0o777).toString(8)}; it takes 600`,
        next: [`chmod 600 ${path}`, 'tms accounts rotate <account> --kind key  # somebody may have read it'],
      })
    }
    if (size > mostBytes) throw invalid(`${path} is larger than 1 MB`, 'it holds keys and nothing else')
    return await file.readFile('utf8')
  } catch (cause) {
    throw cause instanceof TmsError ? cause : unreadable(path, cause)
  } finally {
    await file.close()
  }
}

function unreadable(path: string, cause: unknown): TmsError {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'nothing more'
  return new TmsError(
    {
      code: 'FILE_UNREADABLE',
      what: `${path} can't be read`,
      why: `the system says ${code}`,
      next: [`ls -l ${path}`],
    },
    { cause },
  )
}

/** For password managers. What it printed is never shown, not even when it failed. */
function outputOf(command: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const limits = { timeout: commandMs, maxBuffer: mostBytes, encoding: 'utf8' } as const
    execFile('/bin/sh', ['-c', command], limits, (error, stdout) => {
      if (!error) return resolve(stdout)
      reject(
        new TmsError({
          code: 'TOOL_FAILED',
          what: 'the command that gives the keys failed',
          why: error.killed
            ? `it took longer than ${commandMs / 1000} s`
            : `it ended with ${String(error.code ?? error.signal)}`,
          next: ['run it by hand, as the user that tms runs as'],
        }),
      )
    })
  })
}

function invalid(what: string, why: string): TmsError {
  return new TmsError({ code: 'CONFIG_INVALID', what, why, next: ['tms accounts rotate <account> --kind key'] })
}
