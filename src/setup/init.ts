import { randomUUID } from 'node:crypto'
import { administration, push } from '../db/schema.ts'
import type { SqlFiles } from '../db/files.ts'
import type { environments } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import { loadCatalogue, type Catalogue } from '../flags/catalogue.ts'
import { ensureKey, registerFirstKey } from '../keys/keys.ts'
import { signerPlace, type SignerSources } from '../keys/open.ts'
import { claimEnvironment } from './override-token.ts'

export type Initialisation = {
  readonly files: SqlFiles
  readonly catalogue: Catalogue
  /** What was asked for; null takes what the database is, else the default. */
  readonly environment: (typeof environments)[number] | null
  readonly defaultEnvironment: (typeof environments)[number]
  /** Who the first operator is, where the database doesn't know the caller yet. */
  readonly operator: string
  readonly signing: SignerSources
  /** Where the override token waits until it has been shown. */
  readonly tokenFile: string
}

export type Initialised = {
  readonly target: string
  readonly environment: string
  readonly operator: string
  readonly first: boolean
  readonly signingKey: {
    readonly path: string
    readonly fingerprint: string
    readonly made: boolean
    /** The database knows it as the key in force. */
    readonly inForce: boolean
  }
  /** Shown once; the database has its hash. Null when the database was initialised before. */
  readonly overrideToken: string | null
  /** A file that an interrupted init left, with a token that may be the one. */
  readonly unshownToken: string | null
  /** The file of a token that the database has replaced; it is removed. */
  readonly replacedToken: string | null
  /** Where the token waits until it was shown. */
  readonly tokenFile: string | null
  readonly flagsSet: readonly string[]
}

/**
 * Makes a database ready: schema, first operator, environment, flag catalogue and the required posture. Each step finds
 * out what is there already, so that running it again after an interruption finishes the work.
 */
export async function initialise(driver: Driver, input: Initialisation): Promise<Initialised> {
  await push(driver, input.files)
  await bootstrapOperator(driver, input.operator)
  const { signer, place, made } = await ensureKey(input.signing)

  await loadCatalogue(driver, input.catalogue)
  const { initialised_at, environment: already } = granted(await driver.call('status', {}))
  // Only a fresh database gets the posture: later values are somebody's decision.
  const flagsSet = initialised_at === null ? await setPosture(driver, input.catalogue) : []

  const { environment, first, overrideToken, waits, unshown, replaced } = await claimEnvironment(
    driver,
    { path: input.tokenFile, needed: signerPlace(input.signing) === null },
    {
      environment: input.environment ?? already ?? input.defaultEnvironment,
      signing_key_fingerprint: signer.fingerprint,
    },
    initialised_at !== null,
  )
  const inForce = await registerFirstKey(driver, signer)
  const { principal } = granted(await driver.call('whoami', {}))
  return {
    target: driver.target.name,
    environment,
    operator: principal,
    first,
    signingKey: { path: place, fingerprint: signer.fingerprint, made, inForce },
    overrideToken,
    unshownToken: unshown,
    replacedToken: replaced,
    tokenFile: waits,
    flagsSet,
  }
}

/** What the database says it is; null before anybody said so. */
export async function environmentOf(driver: Driver): Promise<Initialised['environment'] | null> {
  const status = await driver.call('status', {})
  return 'refused' in status ? null : status.environment
}

/** Where the database knows the caller (embedded, or an earlier init) there is nothing to do. */
async function bootstrapOperator(driver: Driver, name: string): Promise<void> {
  const me = await driver.call('whoami', {})
  if (!('refused' in me)) return
  if (me.refused.code !== 'IDENTITY_UNKNOWN') granted(me)
  if (!driver.administration) {
    throw new TmsError({
      code: 'IDENTITY_UNKNOWN',
      what: `${driver.target.name} does not know you`,
      why: 'through an API nobody can make the first operator',
      next: [`select tms._bootstrap('jwt', '<your sub>', '${name}');  -- in the SQL editor, as postgres`, 'tms init'],
    })
  }
  const made = await administration(driver).transaction(async (run) => {
    const [row] = await run(`select tms._bootstrap('postgres', session_user::text, $1) as made`, [name])
    return row?.['made'] === true
  })
  if (!made) granted(me)
}

/** The values that the catalogue requires, and the portals: what a fresh database starts with. */
async function setPosture(driver: Driver, catalogue: Catalogue): Promise<string[]> {
  const wanted = catalogue.entries.flatMap((entry) => {
    if (entry.guarded === true) return []
    if (entry.required !== undefined) return [{ key: entry.key, value: entry.required }]
    return /^portal\.\w+\.enabled$/.test(entry.key) ? [{ key: entry.key, value: true }] : []
  })
  for (const { key, value } of wanted) {
    granted(
      await driver.call('flags_set', {
        request_id: randomUUID(),
        key,
        level: 'global',
        value,
        why: 'the posture a database starts with',
      }),
    )
  }
  return wanted.map(({ key }) => key)
}
