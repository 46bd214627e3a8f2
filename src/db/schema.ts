import { contractVersion } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { exit, TmsError } from '../errors.ts'
import { shippedFunctions, type SqlFiles } from './files.ts'
import { planPush, pushSchema, type PushReport } from './push.ts'

/**
 * Checks that this release and the database understand each other: the same contract, or one older or newer. Tells what
 * a person should know when they differ, null when they don't.
 */
export async function checkContract(driver: Driver): Promise<string | null> {
  const { contract } = granted(await driver.call('contract_version', {}))
  if (contract === contractVersion) return null
  const older = contract < contractVersion
  if (Math.abs(contract - contractVersion) === 1) {
    return older
      ? `the database is one version older than this tms (contract ${contract}, not ${contractVersion}): tms db push`
      : `the database is one version newer than this tms (contract ${contract}, not ${contractVersion}): upgrade tms`
  }
  throw new TmsError({
    code: older ? 'SCHEMA_OLDER' : 'SCHEMA_NEWER',
    what: `${driver.target.name} has contract ${contract} and this tms speaks ${contractVersion}`,
    why: 'only neighbouring versions work together',
    next: older ? ['tms db push', 'tms db status'] : ['npm install -g @transbot/tms', 'tms db status'],
  })
}

export type SchemaFile = {
  readonly kind: 'migration' | 'function'
  readonly name: string
  readonly state: 'applied' | 'pending' | 'changed' | 'unknown here'
  readonly appliedAt: string | null
}

export type SchemaStatus = {
  readonly target: string
  readonly present: boolean
  readonly contract: number | null
  readonly speaks: number
  readonly upToDate: boolean
  readonly files: readonly SchemaFile[]
}

/** What the database ran of what this release ships. */
export async function schemaStatus(driver: Driver, files: SqlFiles): Promise<SchemaStatus> {
  const speaks = contractVersion
  const target = driver.target.name
  let contract: number
  try {
    contract = granted(await driver.call('contract_version', {})).contract
  } catch (error) {
    if (!(error instanceof TmsError) || error.code !== 'SCHEMA_ABSENT') throw error
    const pending = [...files.migrations, ...files.functions].map(({ kind, name }): SchemaFile => ({
      kind,
      name,
      state: 'pending',
      appliedAt: null,
    }))
    return { target, present: false, contract: null, speaks, upToDate: false, files: pending }
  }
  const applied = new Map(
    granted(await driver.call('schema_state', {})).files.map((file) => [`${file.kind} ${file.name}`, file]),
  )
  const shipped = [...files.migrations, ...files.functions].map(({ kind, name, sha256 }): SchemaFile => {
    const row = applied.get(`${kind} ${name}`)
    applied.delete(`${kind} ${name}`)
    return {
      kind,
      name,
      state: row === undefined ? 'pending' : row.sha256 === sha256 ? 'applied' : 'changed',
      appliedAt: row?.applied_at ?? null,
    }
  })
  const strange = [...applied.values()].map(({ kind, name, applied_at }): SchemaFile => ({
    kind,
    name,
    state: 'unknown here',
    appliedAt: applied_at,
  }))
  const all = [...shipped, ...strange]
  return {
    target,
    present: true,
    contract,
    speaks,
    upToDate: all.every((file) => file.state === 'applied'),
    files: all,
  }
}

/**
 * Applies what is missing. Drivers that only call functions cannot: their files are exported. Asked before whether anything is:
 * an owner that runs beside lets others call, and not push.
 */
export async function push(driver: Driver, files: SqlFiles): Promise<PushReport> {
  if (await isCurrent(driver, files)) return { migrations: [], functions: [] }
  return pushSchema(administration(driver), files)
}

async function isCurrent(driver: Driver, files: SqlFiles): Promise<boolean> {
  try {
    if (!(await schemaStatus(driver, files)).upToDate) return false
    return strangeFunctions(granted(await driver.call('doctor', {})).functions, files).length === 0
  } catch (error) {
    // Nobody knows the caller yet, or the schema is somebody else's: where SQL can be run, pushing finds out for itself.
    if (driver.administration) return false
    if (error instanceof TmsError && error.exit === exit.refused) return true
    throw error
  }
}

/** Functions of the database that aren't this release's. One replaced by hand keeps its name and its grants; only its body tells. */
export function strangeFunctions(found: Readonly<Record<string, string>>, files: SqlFiles): string[] {
  const shipped = shippedFunctions(files)
  const differing = Object.entries(found).flatMap(([name, sum]) => {
    const expected = shipped.get(name)
    return expected === sum ? [] : [expected === undefined ? `${name} (not shipped)` : name]
  })
  const missing = [...shipped.keys()].filter((name) => !Object.hasOwn(found, name)).map((name) => `${name} (missing)`)
  return [...differing, ...missing].sort()
}

export function administration(driver: Driver): NonNullable<Driver['administration']> {
  if (driver.administration) return driver.administration
  throw new TmsError({
    code: 'NO_SQL',
    what: `${driver.target.name} takes calls and no SQL`,
    why: 'this connection goes through an API; its schema is changed with the files that `tms db export` writes',
    next: ['tms db export --supabase', 'supabase db push'],
  })
}

/** Whether the database holds schema tms; asked before anything is put into a database that others may share. */
export async function schemaPresent(driver: Driver): Promise<boolean> {
  try {
    await driver.call('contract_version', {})
    return true
  } catch (error) {
    // An edited or very old schema is a schema: only its absence needs consent.
    if (error instanceof TmsError && error.code === 'SCHEMA_ABSENT') return false
    if (error instanceof TmsError && error.code === 'SCHEMA_OLDER') return true
    throw error
  }
}

/** Removes everything tms stored, in one transaction, and lays the schema anew. Roles stay: other databases use them. */
export async function resetSchema(driver: Driver, files: SqlFiles): Promise<PushReport> {
  const { environment } = granted(await driver.call('status', {}))
  if (environment === 'production') {
    throw new TmsError({
      code: 'ENVIRONMENT_DENIED',
      what: `${driver.target.name} is production`,
      why: 'a reset removes the ledger, which is evidence',
      next: ['drop schema tms cascade  -- by hand, in psql, after a backup'],
    })
  }
  planPush(files, [])
  await administration(driver).transaction(async (run) => {
    await run('set local role tms_owner')
    await run('drop schema tms cascade')
  })
  return push(driver, files)
}
