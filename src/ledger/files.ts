import { createReadStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { TmsError } from '../errors.ts'
import { publicHalf, type PublicHalf } from '../proof/ed25519.ts'
import type { Signer } from '../keys/signer.ts'
import { signerOf } from '../keys/private.ts'
import { ProofError } from '../proof/bytes.ts'
import { linesOf, verifyExport } from './offline.ts'
import type { Verification } from './findings.ts'

/** Files that people hand to these commands: notes, keys, exports. */

export async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw unreadable(path, error)
  }
}

export async function readPublicKey(path: string): Promise<PublicHalf> {
  const pem = await readText(path)
  try {
    return publicHalf(pem)
  } catch (error) {
    if (!(error instanceof ProofError)) throw error
    throw notTheKey(path, error.message, 'tms evidence keys export > key.pem')
  }
}

/** A witness's own key. Its text gets no further than this. */
export async function readPrivateKey(path: string): Promise<Signer> {
  const signer = signerOf(await readText(path))
  if (signer) return signer
  throw notTheKey(path, 'it is no Ed25519 private key in PEM', `openssl genpkey -algorithm ed25519 -out ${path}`)
}

export async function verifyExportFile(
  path: string,
  outside: { key?: PublicHalf | undefined; checkpoint?: string | undefined },
): Promise<Verification> {
  const chunks: AsyncIterable<Buffer> = createReadStream(path, { highWaterMark: 1 << 20 })
  try {
    return await verifyExport(linesOf(announced(path, chunks)), { of: path, ...outside })
  } catch (error) {
    if (error instanceof Error && 'syscall' in error) throw unreadable(path, error)
    throw error
  }
}

/** A key or a note is no export that somebody changed: header and rows name their form, whatever else was changed in them. */
async function* announced(path: string, chunks: AsyncIterable<Buffer>): AsyncIterable<Buffer> {
  let first = true
  for await (const chunk of chunks) {
    const start = chunk.subarray(0, 8192)
    if (first && !start.includes('tms-ledger-') && start.toString('latin1').trim() !== '') throw noExport(path)
    first = false
    yield chunk
  }
}

function noExport(path: string): TmsError {
  return new TmsError({
    code: 'INPUT_INVALID',
    what: `${path} is no export of a ledger`,
    why: 'nothing at its beginning names the form tms-ledger-export-v1',
    next: ['tms ledger export --out ledger.jsonl'],
  })
}

function notTheKey(path: string, why: string, next: string): TmsError {
  return new TmsError({ code: 'INPUT_INVALID', what: `${path} is not the key that is needed`, why, next: [next] })
}

function unreadable(path: string, error: unknown): TmsError {
  const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
  const missing = code === 'ENOENT' || code === 'ENOTDIR'
  return new TmsError(
    {
      code: missing ? 'USAGE' : 'FILE_UNREADABLE',
      what: missing ? `There is no file ${path}.` : `${path} can't be read`,
      why: `the system says ${code}`,
      next: [`ls -l ${path}`],
    },
    { cause: error },
  )
}
