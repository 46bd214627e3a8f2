import { createPrivateKey, createPublicKey, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { TmsError } from '../errors.ts'
import { publicHalf } from '../proof/ed25519.ts'
import type { Signer } from './signer.ts'

/** The private half as PEM (PKCS #8). It is returned to whoever writes the file, and goes nowhere else. */
export function makePrivateKey(): string {
  return generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
}

export function signingKeyPath(folder: string): string {
  return join(folder, 'signing.pem')
}

/** Signs with a private key in memory. Null when the text is none of Ed25519; the text is never part of an error. */
export function signerOf(pem: string): Signer | null {
  let key: KeyObject
  try {
    key = createPrivateKey(pem)
  } catch {
    return null
  }
  if (key.asymmetricKeyType !== 'ed25519') return null
  const half = publicHalf(createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString())
  return { ...half, sign: async (bytes) => new Uint8Array(sign(null, bytes, key)) }
}

/** Null when there is none. A file that is no Ed25519 key is a problem, not an absent key: it must not be replaced. */
export async function readKeyFile(path: string): Promise<Signer | null> {
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
  const signer = signerOf(pem)
  if (signer) return signer
  throw new TmsError({
    code: 'CONFIG_INVALID',
    what: `${path} is no Ed25519 private key`,
    why: 'it was not made by tms, or it is damaged',
    next: [`mv ${path} ${path}.broken`, 'tms evidence keys generate'],
  })
}

/** Others of this machine can read the key. */
export async function exposed(path: string): Promise<boolean> {
  return ((await stat(path)).mode & 0o077) !== 0
}
