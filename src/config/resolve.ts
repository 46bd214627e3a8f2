import { existsSync } from 'node:fs'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import type { Connection } from '../drivers/connection.ts'
import { TmsError } from '../errors.ts'
import { suggest } from '../suggest.ts'
import { configName, readConfigFile, type ConfigFile, type Layer } from './file.ts'
import { secretsIn } from './secrets.ts'
import {
  settingNames,
  settingsTable,
  type SettingName,
  type SettingRow,
  type Settings,
  type SettingsRequest,
  type SettingValues,
} from './settings.ts'

export type ResolveInput = SettingsRequest & {
  /** Where the search for the configuration file starts, and what relative paths are meant from without one. */
  readonly folder: string
  readonly environment: NodeJS.ProcessEnv
  readonly flags: {
    readonly profile?: string | undefined
    readonly driver?: Connection['driver'] | undefined
    readonly config?: string | undefined
    readonly timeout?: number | undefined
  }
}

type Found = { readonly value: string | number; readonly source: string }
type Chosen = { readonly value: Connection['driver']; readonly source: string }

/** Flag, then variable, then the profile, then the file, then the default; with where each value came from. */
export async function resolveSettings(input: ResolveInput): Promise<Settings> {
  const file = await openFile(input)
  const profile = chosenProfile(input, file)
  const layers = layersOf(file, profile)
  const found = new Map<SettingName, Found>()
  const warnings: string[] = []

  for (const name of settingNames) {
    const value = fromFlag(name, input) ?? fromVariable(name, input) ?? fromLayers(name, layers) ?? fromDefault(name)
    if (value) found.set(name, value)
  }
  const driver = chooseDriver(input, layers, found)
  found.set('driver', driver)
  if (!file && !input.create && !found.has('databaseUrl') && !found.has('supabaseUrl')) throw missing(input.folder)

  if (file?.exposed) warnings.push(`${file.path} holds a secret and others can read it: chmod 600 ${file.path}`)
  warnings.push(...overridden(found, layers))

  const root = file ? dirname(file.path) : input.folder
  const values = valuesOf(found, root)
  return {
    values,
    sources: Object.fromEntries([...found].map(([name, { source }]) => [name, source])),
    file: file?.path ?? null,
    profile,
    connection: connectionOf(values, driver, input.create === true),
    warnings,
    secrets: [...found].flatMap(([name, { value }]) => secretsIn(name, value)),
  }
}

async function openFile({ flags, environment, folder }: ResolveInput): Promise<ConfigFile | null> {
  const named = flags.config ?? (environment.TMS_CONFIG || undefined)
  if (named === undefined) {
    const path = findUpwards(folder)
    return path === null ? null : readConfigFile(path)
  }
  const path = resolve(folder, named)
  const file = await readConfigFile(path)
  if (file) return file
  throw new TmsError({
    code: 'CONFIG_MISSING',
    what: `There is no configuration file ${path}.`,
    why: `${flags.config === undefined ? 'The variable TMS_CONFIG' : '--config'} names it.`,
    next: ['tms init'],
  })
}

/** The nearest configuration file here or above, as git finds its folder. */
function findUpwards(folder: string): string | null {
  const path = join(folder, configName)
  if (existsSync(path)) return path
  const above = dirname(folder)
  return above === folder ? null : findUpwards(above)
}

function chosenProfile({ flags, environment }: ResolveInput, file: ConfigFile | null): string | null {
  const asked = flags.profile ?? (environment.TMS_PROFILE || undefined)
  const profile = asked ?? file?.profile?.value
  if (profile === undefined) return null
  if (file?.profiles.has(profile)) return profile
  const names = [...(file?.profiles.keys() ?? [])]
  const meant = suggest(profile, names)
  throw new TmsError({
    code: 'PROFILE_UNKNOWN',
    what: `There is no profile ${profile}.`,
    why: [
      file
        ? `${file.path} has ${names.length > 0 ? names.join(', ') : 'no profiles'}.`
        : 'There is no configuration file.',
      ...(meant ? [`Did you mean ${meant}?`] : []),
    ].join(' '),
    next: [file ? `tms config show --profile ${meant ?? names[0] ?? '<name>'}` : 'tms init'],
  })
}

/** The parts of the file that apply, most specific first. */
type Layers = readonly { readonly layer: Layer; readonly place: (line: number) => string }[]

function layersOf(file: ConfigFile | null, profile: string | null): Layers {
  if (!file) return []
  const base = { layer: file.base, place: (line: number) => `${file.path}:${line}` }
  const own = profile === null ? undefined : file.profiles.get(profile)
  if (!own) return [base]
  return [{ layer: own, place: (line: number) => `${file.path}:${line} (profile ${String(profile)})` }, base]
}

function fromFlag(name: SettingName, { flags }: ResolveInput): Found | undefined {
  const value = name === 'driver' || name === 'timeout' ? flags[name] : undefined
  return value === undefined ? undefined : { value, source: `--${name}` }
}

/** URLs that other programs' environments hold too. */
const ambient: ReadonlySet<SettingName> = new Set(['databaseUrl', 'replicaUrl', 'supabaseUrl'])

function fromVariable(name: SettingName, { environment, ambientUrls }: ResolveInput): Found | undefined {
  if (ambientUrls === false && ambient.has(name)) return undefined
  const row: SettingRow = settingsTable[name]
  const text = environment[row.variable]
  if (!text) return undefined
  const parsed = row.schema.safeParse(row.schema.safeParse(text).success ? text : numberOr(text))
  if (parsed.success) return { value: parsed.data, source: row.variable }
  throw new TmsError({
    code: 'CONFIG_INVALID',
    what: `The variable ${row.variable} is wrong: ${parsed.error.issues[0]?.message ?? 'not accepted'}.`,
    why: `It sets ${name}: ${row.about}.`,
    next: [`unset ${row.variable}`],
  })
}

function numberOr(text: string): string | number {
  return /^-?\d+$/.test(text) ? Number(text) : text
}

function fromLayers(name: SettingName, layers: Layers): Found | undefined {
  for (const { layer, place } of layers) {
    const entry = layer.get(name)
    if (entry) return { value: entry.value, source: place(entry.line) }
  }
  return undefined
}

function fromDefault(name: SettingName): Found | undefined {
  const row: SettingRow = settingsTable[name]
  return row.default === undefined ? undefined : { value: row.default, source: 'default' }
}

/**
 * `--driver` or the file, else DATABASE_URL, else SUPABASE_URL, else embedded. A part of the file that gives one URL
 * and no driver means that URL: a profile with its own databaseUrl must not end up on the embedded database of the base.
 */
function chooseDriver(input: ResolveInput, layers: Layers, found: ReadonlyMap<SettingName, Found>): Chosen {
  const chosen = ({ value, source }: Found): Chosen => ({ value: settingsTable.driver.schema.parse(value), source })
  const named = fromFlag('driver', input) ?? fromVariable('driver', input)
  if (named) return chosen(named)
  for (const { layer, place } of layers) {
    const explicit = layer.get('driver')
    if (explicit) return chosen({ value: explicit.value, source: place(explicit.line) })
    const postgres = layer.get('databaseUrl')
    const supabase = layer.get('supabaseUrl')
    if (postgres && !supabase) return { value: 'postgres', source: place(postgres.line) }
    if (supabase && !postgres) return { value: 'supabase', source: place(supabase.line) }
  }
  const postgres = found.get('databaseUrl')
  if (postgres) return { value: 'postgres', source: postgres.source }
  const supabase = found.get('supabaseUrl')
  if (supabase) return { value: 'supabase', source: supabase.source }
  return { value: 'embedded', source: 'default' }
}

/** Where a variable of the environment beats a URL that somebody wrote down for this folder. */
function overridden(found: ReadonlyMap<SettingName, Found>, layers: Layers): string[] {
  return [...ambient].flatMap((name) => {
    const used = found.get(name)
    const written = fromLayers(name, layers)
    if (!used || !written || used.value === written.value) return []
    return [`${used.source} is set and wins over ${name} in ${written.source}.`]
  })
}

function valuesOf(found: ReadonlyMap<SettingName, Found>, root: string): SettingValues {
  const entries = [...found].map(([name, { value }]) => {
    const row: SettingRow = settingsTable[name]
    return [name, row.path && typeof value === 'string' && !isAbsolute(value) ? join(root, value) : value]
  })
  // True because each value was accepted by its row's schema, and each row with a default is in `found`.
  return Object.fromEntries(entries) as SettingValues
}

function connectionOf(values: SettingValues, driver: Chosen, create: boolean): Connection {
  const callTimeoutMs = values.timeout * 1000
  const lacks = (setting: 'databaseUrl' | 'supabaseUrl' | 'supabaseAnonKey') =>
    new TmsError({
      code: 'CONFIG_MISSING',
      what: `The ${driver.value} driver needs ${setting}.`,
      why: `${driver.source} chose the driver, and neither ${settingsTable[setting].variable} nor the file gives ${setting}.`,
      next: [`export ${settingsTable[setting].variable}=...`, 'tms config show'],
    })
  switch (driver.value) {
    case 'postgres':
      if (values.databaseUrl === undefined) throw lacks('databaseUrl')
      return {
        driver: 'postgres',
        url: values.databaseUrl,
        ...(values.replicaUrl === undefined ? {} : { replicaUrl: values.replicaUrl }),
        connectTimeoutMs: values.connectTimeout * 1000,
        callTimeoutMs,
      }
    case 'supabase': {
      const key = values.supabaseAnonKey ?? values.supabaseServiceRoleKey
      if (values.supabaseUrl === undefined) throw lacks('supabaseUrl')
      if (key === undefined) throw lacks('supabaseAnonKey')
      return {
        driver: 'supabase',
        url: values.supabaseUrl,
        key,
        ...(values.token === undefined ? {} : { token: values.token }),
        callTimeoutMs,
        pollMs: values.pollMs,
      }
    }
    case 'embedded':
      return { driver: 'embedded', directory: values.directory, create, callTimeoutMs }
  }
}

function missing(folder: string): TmsError {
  return new TmsError({
    code: 'CONFIG_MISSING',
    what: `Neither ${folder} nor any folder above it has a ${configName}.`,
    why: 'And neither DATABASE_URL nor SUPABASE_URL is set, so it is unknown which database is meant.',
    // A new database comes last: who is in the wrong folder would find it empty, and take it for the one they meant.
    next: [
      "cd <the project's folder>",
      'export DATABASE_URL=postgres://…',
      `tms config show --config <path>/${configName}`,
      'tms init',
    ],
  })
}
