import { TmsError } from '../errors.ts'
import { readKeyFile, signerOf, signingKeyPath } from './private.ts'
import { openProgram, type SigningProgram } from './program.ts'
import type { Signer } from './signer.ts'

export type SignerSources = {
  readonly keysFolder: string
  /** TMS_SIGNING_KEY is read from it; the signing program gets the rest of it. */
  readonly environment: NodeJS.ProcessEnv
  /** The setting signing.command, with signing.publicKey. */
  readonly command?: SigningProgram | null | undefined
}

/**
 * Whoever signs here: the key in TMS_SIGNING_KEY, else the program of signing.command, else the file signing.pem. Null
 * when there is none of them. Whether the key may be used today is for the database to say: see `usableSigner`.
 */
export async function openSigner({ keysFolder, environment, command }: SignerSources): Promise<Signer | null> {
  const { TMS_SIGNING_KEY: pem, ...rest } = environment
  if (pem) return signerOfVariable(pem)
  if (command) return openProgram(command, rest)
  return readKeyFile(signingKeyPath(keysFolder))
}

/** Where the private half is when it isn't a file of ours: then tms neither makes nor moves it. Null for the file. */
export function signerPlace({ environment, command }: SignerSources): string | null {
  if (environment['TMS_SIGNING_KEY']) return 'TMS_SIGNING_KEY'
  return command ? 'signing.command' : null
}

function signerOfVariable(pem: string): Signer {
  // files of variables hold one line each, and write the line ends of a PEM as \n
  const signer = signerOf(pem.replaceAll('\\n', '\n'))
  if (signer) return signer
  throw new TmsError({
    code: 'CONFIG_INVALID',
    what: 'TMS_SIGNING_KEY is no Ed25519 private key',
    why: 'it holds the key itself, as PEM (PKCS #8) and not encrypted',
    next: ['unset TMS_SIGNING_KEY', 'openssl genpkey -algorithm ed25519'],
  })
}
