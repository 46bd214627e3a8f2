import { dirname, isAbsolute, join } from 'node:path'
import * as z from 'zod'
import { TmsError } from '../errors.ts'
import type { SignerSources } from '../keys/open.ts'
import { keysFolder } from './folders.ts'
import type { Settings } from './settings.ts'

/** Where the private half of the signing key may be, for `openSigner` and `usableSigner`. */
export function signerSources(
  settings: Settings,
  environment: NodeJS.ProcessEnv,
  folder: string = keysFolder(settings, environment),
): SignerSources {
  const command = settings.values['signing.command']
  const publicKey = settings.values['signing.publicKey']
  if (command === undefined) return { keysFolder: folder, environment, command: null }
  if (publicKey === undefined) {
    throw new TmsError({
      code: 'CONFIG_MISSING',
      what: 'signing.publicKey is missing',
      why: 'signing.command signs with a key whose public half only its owner knows',
      next: ['tms config show', 'openssl pkey -in <key.pem> -pubout'],
    })
  }
  const words = z.array(z.string()).parse(JSON.parse(command))
  const inline = publicKey.includes('-----BEGIN')
  const from = settings.file === null ? '.' : dirname(settings.file)
  return {
    keysFolder: folder,
    environment,
    command: { command: words, publicKey: inline || isAbsolute(publicKey) ? publicKey : join(from, publicKey) },
  }
}
