import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { link, mkdir, open, readFile, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import * as z from 'zod'
import { environments } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import { fileProblem, writeFileAtomically } from '../files.ts'

/**
 * The override token until it has been shown. The database has only its hash: of an init that committed it and was killed
 * before anybody read it, safe mode could never be left. So it is written down first, with the request that commits it.
 * An init that finds the file asks the same again, and the database tells for a day whether that was what counted.
 */

const form = z.strictObject({
  overrideToken: z.string().regex(/^tms-override-[\w-]{32}$/),
  request: z.strictObject({
    request_id: z.uuid(),
    environment: z.enum(environments),
    override_token_sha256: z.string(),
    signing_key_fingerprint: z.string(),
  }),
})
type Attempt = z.infer<typeof form>
type Wanted = Pick<Attempt['request'], 'environment' | 'signing_key_fingerprint'>

export type Claimed = {
  readonly environment: string
  readonly first: boolean
  /** Null when the database was initialised before. */
  readonly overrideToken: string | null
  /** Where the token waits until it was shown; null where it couldn't be written down, or there is none. */
  readonly waits: string | null
  /** A file with a token that nobody was shown and that may be the one: what is older than a day nobody knows any more. */
  readonly unshown: string | null
  /** The file of a token that is not the database's any more; it is removed. */
  readonly replaced: string | null
}

/** Beside the signing key; a name for each database. */
export function overrideTokenPath(folder: string, place: string): string {
  return join(folder, `override-token-${createHash('sha256').update(place).digest('hex').slice(0, 16)}.json`)
}

export type TokenFile = {
  readonly path: string
  /** False where the signing key needs no folder either: then none is needed, and a token that is lost is rotated. */
  readonly needed: boolean
}

type Kept = { readonly left: Attempt | null; readonly waits: string | null }

/** Sets what the database is. The token stays in the file until `forgetToken`, once it has been shown. */
export async function claimEnvironment(
  driver: Driver,
  tokenFile: TokenFile,
  wanted: Wanted,
  initialised: boolean,
): Promise<Claimed> {
  const file = tokenFile.path
  const made = newAttempt(wanted)
  const keep = initialised ? readAttempt(file) : keepAttempt(file, made)
  const { left, waits } = await keep
    .then((attempt): Kept => ({ left: attempt, waits: file }))
    .catch((error: unknown): Kept => {
      if (tokenFile.needed || !isUnusable(error)) throw error
      return { left: initialised ? null : made, waits: null }
    })
  if (left !== null) {
    const answer = await driver.call('environment_init', left.request)
    if (!('refused' in answer) && answer.environment === wanted.environment) {
      const { environment, first } = answer
      // Rotated meanwhile, from here or elsewhere: shown as if it were good it would fail whoever needs it.
      if (left !== made && answer.token_in_force === false) {
        await forgetToken(file)
        return { environment, first: false, overrideToken: null, waits: null, unshown: null, replaced: file }
      }
      if (first) return { environment, first, overrideToken: left.overrideToken, waits, unshown: null, replaced: null }
    }
    // Made just now, and somebody on another machine was first.
    if (left === made && waits !== null) await forgetToken(file)
  }
  const { environment, first } = granted(
    await driver.call('environment_init', { ...made.request, request_id: randomUUID() }),
  )
  return {
    environment,
    first,
    overrideToken: first ? made.overrideToken : null,
    waits: null,
    unshown: left === null || left === made ? null : file,
    replaced: null,
  }
}

export async function forgetToken(file: string): Promise<void> {
  await rm(file, { force: true })
}

export type RotatedToken = { readonly target: string; readonly overrideToken: string }

/** A new token for one that was shown and lost. What waits in the file of an earlier init counts no more. */
export async function rotateOverrideToken(driver: Driver, file: string, why: string): Promise<RotatedToken> {
  const { overrideToken, override_token_sha256 } = newToken()
  granted(await driver.call('override_token_rotate', { request_id: randomUUID(), override_token_sha256, why }))
  await forgetToken(file).catch(() => undefined)
  return { target: driver.target.name, overrideToken }
}

function newToken() {
  const overrideToken = `tms-override-${randomBytes(24).toString('base64url')}`
  return { overrideToken, override_token_sha256: createHash('sha256').update(overrideToken).digest('hex') }
}

/** The folder's fault, and not that of a file which may hold a token. */
function isUnusable(error: unknown): boolean {
  if (!(error instanceof TmsError)) return false
  return error.code === 'FILE_UNWRITABLE' || (error.code === 'FILE_UNREADABLE' && error.cause !== undefined)
}

function newAttempt(wanted: Wanted): Attempt {
  const { overrideToken, override_token_sha256 } = newToken()
  return { overrideToken, request: { request_id: randomUUID(), ...wanted, override_token_sha256 } }
}

/** What the file holds then: of two at once both go on with the same. One that wanted something else is over. */
async function keepAttempt(file: string, made: Attempt): Promise<Attempt> {
  const { environment, signing_key_fingerprint } = made.request
  for (;;) {
    const left = await readAttempt(file)
    if (left?.request.environment === environment && left.request.signing_key_fingerprint === signing_key_fingerprint) {
      return left
    }
    if (left !== null) await forgetToken(file)
    if (await putNew(file, made)) return made
  }
}

async function readAttempt(file: string): Promise<Attempt | null> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code === 'ENOENT' || code === 'ENOTDIR') return null
    throw new TmsError(
      {
        code: 'FILE_UNREADABLE',
        what: `${file} can't be read`,
        why: `it may hold an override token that nobody was shown; the system says ${String(code)}`,
        next: [`ls -l ${file}`],
      },
      { cause: error },
    )
  }
  try {
    return form.parse(JSON.parse(text))
  } catch {
    // The error would quote it.
    throw new TmsError({
      code: 'FILE_UNREADABLE',
      what: `${file} is damaged`,
      why: 'it should hold an override token that nobody was shown',
      next: [`mv ${file} ${file}.damaged`, 'tms init'],
    })
  }
}

async function putNew(file: string, made: Attempt): Promise<boolean> {
  const temporary = `${file}.${made.request.request_id}.tmp`
  try {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 })
    await writeFileAtomically(temporary, `${JSON.stringify(made, null, 2)}\n`, { mode: 0o600 })
    if (!(await linked(temporary, file))) return false
    const folder = await open(dirname(file), 'r')
    // The name must survive a power loss, too.
    await folder.sync().finally(() => folder.close())
    return true
  } catch (error) {
    const { code, message, why } = fileProblem(file, error)
    throw new TmsError(
      {
        code,
        what: message,
        why: `${why}; the override token has to wait there until it has been shown`,
        next: [`ls -ld ${dirname(file)}`, 'tms init --keys <folder>'],
      },
      { cause: error },
    )
  } finally {
    await rm(temporary, { force: true }).catch(() => undefined)
  }
}

async function linked(temporary: string, file: string): Promise<boolean> {
  try {
    await link(temporary, file)
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false
    throw error
  }
}
