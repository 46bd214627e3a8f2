import { createHash, createHmac, pbkdf2Sync, randomBytes, randomUUID } from 'node:crypto'
import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import { parseSeconds } from '../duration.ts'

export async function listAccounts(driver: Driver): Promise<Contract['accounts_list']['result']> {
  return granted(await driver.call('accounts_list', {}))
}

/** One that was never given a credential is not in use, and so not due. */
export function accountsDue({ accounts }: Contract['accounts_list']['result']): boolean {
  return accounts.some(({ state }) => state === 'due' || state === 'expired')
}

export type Rotation = {
  readonly account: string
  readonly kind: 'key' | 'postgres' | 'jwt'
  readonly name?: string | undefined
  readonly overlap: string
  readonly now: Date
}

export type Rotated = Contract['accounts_rotate']['result'] & {
  /** Shown once; the database holds only its hash. Null for a token: whoever issues tokens signs it. */
  readonly secret: string | null
  /** For a Postgres login this connection may not create: what a database administrator runs. No password in it. */
  readonly statement: string | null
}

export async function rotateAccount(driver: Driver, rotation: Rotation): Promise<Rotated> {
  const { account, kind, overlap, now } = rotation
  if (kind === 'jwt' && rotation.name === undefined) {
    throw new TmsError({
      code: 'USAGE',
      what: '--name is missing',
      why: 'a token is recognised by its subject (sub), which whoever issues tokens decides',
      next: [`tms accounts rotate ${account} --kind jwt --name <sub>`],
    })
  }
  if (kind === 'postgres' && !driver.target.shared) {
    throw new TmsError({
      code: 'INPUT_INVALID',
      what: `${driver.target.name} has no logins`,
      why: 'it knows its callers by the operating-system user alone',
      next: [`tms accounts rotate ${account} --kind key`],
    })
  }
  const name =
    rotation.name ??
    `tms_${account.replace(/\W/g, '')}_${now.toISOString().replace(/\D/g, '').slice(0, 14)}_${randomBytes(2).toString('hex')}`
  if (kind === 'postgres' && (await exists(driver, name))) {
    throw new TmsError({
      code: 'CONFLICT',
      what: `the login "${name}" is there already`,
      why: 'rotating makes a new one, with a password that nobody else has',
      next: ['give another --name, or none'],
    })
  }
  const secret = kind === 'jwt' ? null : randomBytes(32).toString('base64url')
  const result = granted(
    await driver.call('accounts_rotate', {
      request_id: randomUUID(),
      account,
      kind,
      name,
      ...(kind === 'key' && secret ? { secret_sha256: createHash('sha256').update(secret).digest('hex') } : {}),
      overlap_seconds: parseSeconds(overlap, { flag: '--overlap', most: '30d' }),
    }),
  )
  if (kind !== 'postgres' || secret === null) return { ...result, secret, statement: null }
  // The server gets a verifier, never the password: statements end up in logs.
  const statement = `create role "${name.replaceAll('"', '""')}" login connection limit 20 in role tms_caller password '${scramVerifier(secret)}'`
  const made = await createLogin(driver, statement)
  return { ...result, secret, statement: made ? null : statement }
}

/** Where this connection can't look, the database refuses a login that isn't there for tms. */
async function exists(driver: Driver, login: string): Promise<boolean> {
  try {
    const rows = await driver.administration?.transaction((run) =>
      run('select from pg_roles where rolname = $1', [login]),
    )
    return rows !== undefined && rows.length > 0
  } catch (error) {
    if (error instanceof TmsError) return false
    throw error
  }
}

async function createLogin(driver: Driver, statement: string): Promise<boolean> {
  if (!driver.administration) return false
  try {
    await driver.administration.transaction((run) => run(statement))
    return true
  } catch (error) {
    // The account is rotated already: whatever stood in the way here, the secret is said and not lost.
    if (error instanceof TmsError) return false
    throw error
  }
}

/** RFC 5803, as Postgres stores it. */
function scramVerifier(password: string): string {
  const iterations = 4096
  const salt = randomBytes(16)
  const salted = pbkdf2Sync(password, salt, iterations, 32, 'sha256')
  const hmac = (text: string) => createHmac('sha256', salted).update(text).digest()
  const stored = createHash('sha256').update(hmac('Client Key')).digest('base64')
  return `SCRAM-SHA-256$${iterations}:${salt.toString('base64')}$${stored}:${hmac('Server Key').toString('base64')}`
}
