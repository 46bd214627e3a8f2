import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { mkdir, readFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { TmsError } from '../errors.ts'
import { fileProblem, writeFileAtomically } from '../files.ts'

/** The key that signs what tms writes. Its private half stays in this file: never in a database, a log or a pack. */
export type SigningKey = { readonly path: string; readonly fingerprint: string; readonly made: boolean }

export function signingKeyPath(folder: string): string {
  return join(folder, 'signing.pem')
}

/** The key that is there, or a new one. Only `init` calls this: nothing else makes a key silently. */
export async function ensureSigningKey(folder: string): Promise<SigningKey> {
  const path = signingKeyPath(folder)
  const there = await readSigningKey(path)
  if (there) return there
  const { privateKey } = generateKeyPairSync('ed25519')
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  } catch (error) {
    throw fileProblem(path, error)
  }
  await writeFileAtomically(path, pem, 0o600)
  return { path, fingerprint: fingerprintOf(pem), made: true }
}

/** Null when there is none. A file that is no Ed25519 key is a problem, not an absent key: it must not be replaced. */
export async function readSigningKey(path: string): Promise<SigningKey | null> {
  let pem: string
  try {
    pem = await readFile(path, 'utf8')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code === 'ENOENT' || code === 'ENOTDIR') return null
    throw new TmsError(
      {
        code: 'FILE_UNREADABLE',
        what: `the signing key ${path} can't be read`,
        why: `the system says ${String(code)}`,
        next: [`ls -l ${path}`],
      },
      { cause: error },
    )
  }
  try {
    return { path, fingerprint: fingerprintOf(pem), made: false }
  } catch {
    throw new TmsError({
      code: 'CONFIG_INVALID',
      what: `${path} is no Ed25519 private key`,
      why: 'it was not made by tms, or it is damaged',
      next: [`mv ${path} ${path}.broken`, 'tms init'],
    })
  }
}

/** Others of this machine can read the key. */
export async function exposed(path: string): Promise<boolean> {
  return ((await stat(path)).mode & 0o077) !== 0
}

/** sha256 of the public half (SPKI, DER): what `openssl pkey -pubout -outform DER | sha256sum` prints. */
function fingerprintOf(pem: string): string {
  const key = createPrivateKey(pem)
  if (key.asymmetricKeyType !== 'ed25519') throw new Error('not Ed25519')
  const der = createPublicKey(key).export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(der).digest('hex')
}
