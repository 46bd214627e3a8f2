import type { SqlFiles } from '../db/files.ts'
import { schemaStatus, strangeFunctions } from '../db/schema.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'
import type { Catalogue } from '../flags/catalogue.ts'
import { keysFinding, listKeys } from '../keys/keys.ts'
import { openSigner, signerPlace, type SignerSources } from '../keys/open.ts'
import { alarmTypesProblem, type AlarmTypes } from '../incident/alarm-types.ts'
import { readStopFile } from '../incident/stop-file.ts'
import { exposed, signingKeyPath } from '../keys/private.ts'

export type Check = {
  readonly check: string
  readonly state: 'ok' | 'problem' | 'unknown'
  readonly what: string
  readonly next: readonly string[]
}

export type Diagnosis = { readonly checks: readonly Check[] }

export type Patient = {
  readonly nodeVersion: string
  /** Opens the database; thrown errors become the check's finding. */
  readonly open: () => Promise<Driver>
  readonly files: SqlFiles
  readonly catalogue: () => Promise<Catalogue>
  /** What an alarm would do: found out now, and not when the first one comes. */
  readonly alarms: () => Promise<AlarmTypes>
  readonly signing: SignerSources
  readonly configFile: string | null
  readonly warnings: readonly string[]
  readonly now: () => Date
  /** What may stop the workers of this host. */
  readonly stopFile: string
}

/** Looks at everything that tms needs, one check each. What can't be looked at is unknown, never ok. */
export async function diagnose(patient: Patient): Promise<Diagnosis> {
  const key = await signingKeyCheck(patient.signing)
  const alarms = await checked('alarms', () => alarmsCheck(patient))
  const local = [nodeCheck(patient.nodeVersion), configCheck(patient), alarms, key]
  let driver: Driver
  try {
    driver = await patient.open()
  } catch (error) {
    return { checks: [...local, failed('database', error)] }
  }
  return {
    checks: [
      ...local,
      await checked('database', () => reachCheck(driver)),
      await checked('schema', () => schemaCheck(driver, patient.files)),
      await checked('clock', () => clockCheck(driver, patient.now)),
      await checked('stop file', () => stopCheck(driver, patient.stopFile)),
      await checked('signing', () => signingTermCheck(driver, key.state === 'ok' ? patient.signing : null)),
      await checked('flag catalogue', () => catalogueCheck(driver, patient.catalogue)),
      ...(await insideChecks(driver, patient.files)),
    ],
  }
}

export function verdict({ checks }: Diagnosis): Check['state'] {
  if (checks.some(({ state }) => state === 'problem')) return 'problem'
  return checks.some(({ state }) => state === 'unknown') ? 'unknown' : 'ok'
}

function ok(check: string, what: string): Check {
  return { check, state: 'ok', what, next: [] }
}

async function checked(check: string, work: () => Promise<Check>): Promise<Check> {
  try {
    return await work()
  } catch (error) {
    return failed(check, error)
  }
}

/** A check that could not run says so; that is not a finding about what it would have checked. */
function failed(check: string, error: unknown): Check {
  if (!(error instanceof TmsError)) throw error
  return { check, state: 'unknown', what: `${error.message}: ${error.why}`, next: error.next }
}

function nodeCheck(version: string): Check {
  const [major = 0, minor = 0] = version.replace(/^v/, '').split('.').map(Number)
  if (major > 20 || (major === 20 && minor >= 19)) return ok('node', `Node ${version}`)
  return {
    check: 'node',
    state: 'problem',
    what: `Node ${version} is older than 20.19`,
    next: ['install Node 20.19 or later'],
  }
}

function configCheck({ configFile, warnings }: Patient): Check {
  if (warnings.length > 0) {
    return { check: 'configuration', state: 'problem', what: warnings.join('; '), next: ['tms config show'] }
  }
  return ok('configuration', configFile ?? 'no file; flags, variables and defaults apply')
}

async function alarmsCheck({ alarms }: Patient): Promise<Check> {
  const read = await alarms()
  const problem = alarmTypesProblem(read)
  if (problem) return { check: 'alarms', state: 'problem', what: problem.why, next: problem.next }
  return ok('alarms', `${read.types.size} type${read.types.size === 1 ? '' : 's'} of the policy, and the levers' own`)
}

async function signingKeyCheck(signing: SignerSources): Promise<Check> {
  const check = 'signing key'
  return checked(check, async () => {
    const path = signingKeyPath(signing.keysFolder)
    const place = signerPlace(signing)
    const key = await openSigner(signing)
    if (!key) return { check, state: 'problem', what: `there is none in ${path}`, next: ['tms init'] }
    if (place === null && (await exposed(path))) {
      return {
        check,
        state: 'problem',
        what: `others can read ${path}`,
        next: [`chmod 600 ${path}`, 'tms evidence keys rotate'],
      }
    }
    return ok(check, `${place ?? path}, fingerprint ${key.fingerprint.slice(0, 16)}…`)
  })
}

/** Whether evidence can be signed, and for how long. Null: that this machine has no sound key was said already. */
async function signingTermCheck(driver: Driver, signing: SignerSources | null): Promise<Check> {
  const check = 'signing'
  const list = await listKeys(driver, signing)
  const finding = keysFinding(list, signing !== null)
  if (finding !== null) return { check, state: 'problem', what: finding, next: ['tms evidence keys list'] }
  const inForce = list.keys.find(({ state }) => state === 'valid')
  return ok(check, `the key in force is valid until ${inForce?.not_after.slice(0, 10) ?? ''}`)
}

async function reachCheck(driver: Driver): Promise<Check> {
  const { server } = granted(await driver.call('contract_version', {}))
  return ok('database', `${driver.target.name} answers (Postgres ${server})`)
}

async function schemaCheck(driver: Driver, files: SqlFiles): Promise<Check> {
  const status = await schemaStatus(driver, files)
  if (status.upToDate) return ok('schema', `all ${status.files.length} files applied, contract ${status.speaks}`)
  const differing = status.files
    .filter(({ state }) => state !== 'applied')
    .map(({ name, state }) => `${name} (${state})`)
  return { check: 'schema', state: 'problem', what: differing.join(', '), next: ['tms db status', 'tms db push'] }
}

/** A stop of this host that nobody ended: its workers stand still whatever the database says. */
async function stopCheck(driver: Driver, file: string): Promise<Check> {
  const check = 'stop file'
  const none = 'none: the button was not pressed here while the database was down'
  if ((await readStopFile(file, null)) === null) return ok(check, none)
  const { resumed_ms_ago } = granted(await driver.call('fence_state', {}))
  const found = await readStopFile(file, resumed_ms_ago)
  if (found === null) return ok(check, none)
  if (found.over) return ok(check, `${file} is over: a resume came after it`)
  return {
    check,
    state: 'problem',
    what: `${file} stops the workers of this host`,
    next: ['tms incident big-red-button', 'tms incident resume <id>'],
  }
}

/** Leases, nonces and signatures compare clocks; a signed request is good for five minutes. */
const skewLimitMs = 30_000

async function clockCheck(driver: Driver, now: () => Date): Promise<Check> {
  const before = now().getTime()
  const status = granted(await driver.call('status', {}))
  const after = now().getTime()
  const database = Date.parse(status.now)
  const skew = database < before ? before - database : Math.max(0, database - after)
  if (skew <= skewLimitMs) return ok('clock', `within ${Math.ceil(skew / 1000)} s of the database's`)
  return {
    check: 'clock',
    state: 'problem',
    what: `this machine and the database differ by ${Math.round(skew / 1000)} s`,
    next: ['timedatectl status'],
  }
}

async function catalogueCheck(driver: Driver, read: () => Promise<Catalogue>): Promise<Check> {
  const check = 'flag catalogue'
  const catalogue = await read()
  const { catalogue_sha256 } = granted(await driver.call('flags_verify', {}))
  if (catalogue_sha256 === catalogue.sha256)
    return ok(check, `${catalogue.entries.length} flags, as in ${catalogue.path}`)
  return {
    check,
    state: 'problem',
    what: catalogue_sha256 === null ? 'the database has none' : `the database has another one than ${catalogue.path}`,
    next: ['tms db push'],
  }
}

/** What the database finds in itself, and whether its functions are the shipped ones. */
async function insideChecks(driver: Driver, files: SqlFiles): Promise<Check[]> {
  try {
    const { checks, functions } = granted(await driver.call('doctor', {}))
    return [...checks, functionCheck(functions, files)]
  } catch (error) {
    return [failed('inside the database', error)]
  }
}

/** The moved test clock is one, too. */
function functionCheck(found: Readonly<Record<string, string>>, files: SqlFiles): Check {
  const check = 'functions'
  const strange = strangeFunctions(found, files)
  if (strange.length === 0) return ok(check, `all ${Object.keys(found).length} have the shipped bodies`)
  return {
    check,
    state: 'problem',
    what: `differ from this release: ${strange.join(', ')}`,
    next: ['tms db status', 'tms db push'],
  }
}
