import { open, stat } from 'node:fs/promises'
import * as z from 'zod'
import { TmsError } from '../errors.ts'
import { suggest } from '../suggest.ts'
import { parseYaml, type YamlProblem } from '../yaml.ts'
import { hasSecret } from './secrets.ts'
import { settingNames, settingsTable, type SettingName } from './settings.ts'

export const configName = 'tms.config.yaml'

/** A configuration file that was read and is valid. */
export type ConfigFile = {
  readonly path: string
  /** The profile that applies when none is asked for. */
  readonly profile: { readonly value: string; readonly line: number } | null
  readonly base: Layer
  readonly profiles: ReadonlyMap<string, Layer>
  /** It holds a secret and other users of this machine can read it. */
  readonly exposed: boolean
}

/** The settings one part of the file gives, with the line of each. */
export type Layer = ReadonlyMap<SettingName, { readonly value: string | number; readonly line: number }>

const inFile = settingNames.filter((name) => settingsTable[name].inFile)
/** `signing.command` is the key `command` of the map `signing`. */
const placeOf = (name: SettingName): readonly string[] => name.split('.')
const groups = new Set(inFile.flatMap((name) => placeOf(name).slice(0, -1)))
const layerShape = {
  ...shapeOf(inFile.filter((name) => placeOf(name).length === 1)),
  ...Object.fromEntries(
    [...groups].map((group) => {
      const members = inFile.filter((name) => placeOf(name).length > 1 && placeOf(name)[0] === group)
      return [group, z.strictObject(shapeOf(members)).optional()]
    }),
  ),
}
const fileSchema = z.strictObject({
  ...layerShape,
  profile: z.string().min(1).optional(),
  profiles: z.record(z.string(), z.strictObject(layerShape).nullable()).optional(),
})

/** Larger is no configuration: a wrong path, or an attack on the parser. */
const sizeLimit = 1_000_000

/** Reads and checks the file. Null when it doesn't exist. */
export async function readConfigFile(path: string): Promise<ConfigFile | null> {
  const read = await readText(path)
  if (read === null) return null

  const parsed = parseYaml(read.text, fileSchema)
  if ('problem' in parsed) throw invalid(path, parsed.problem)

  const layer = (values: object, keys: readonly string[]): Layer =>
    new Map(
      inFile.flatMap((name) => {
        const value = valueAt(values, placeOf(name))
        return value === undefined ? [] : [[name, { value, line: parsed.lineOf([...keys, ...placeOf(name)]) }] as const]
      }),
    )
  const { profile, profiles } = parsed.value
  const layers = [
    layer(parsed.value, []),
    ...Object.entries(profiles ?? {}).map(([name, values]) => layer(values ?? {}, ['profiles', name])),
  ]
  const [base = new Map(), ...ofProfiles] = layers
  return {
    path,
    profile: profile === undefined ? null : { value: profile, line: parsed.lineOf(['profile']) },
    base,
    profiles: new Map(Object.keys(profiles ?? {}).map((name, i) => [name, ofProfiles[i] ?? new Map()])),
    exposed: (read.mode & 0o044) !== 0 && layers.some(holdsSecret),
  }
}

function shapeOf(names: readonly SettingName[]): Record<string, z.ZodType> {
  return Object.fromEntries(names.map((name) => [placeOf(name).at(-1) ?? name, settingsTable[name].schema.optional()]))
}

function valueAt(values: object, [key = '', ...rest]: readonly string[]): string | number | undefined {
  // True because fileSchema allows nothing but maps, and the settings' own types under their names.
  const value = (values as Record<string, object | string | number | undefined>)[key]
  return typeof value === 'object' ? valueAt(value, rest) : value
}

function holdsSecret(layer: Layer): boolean {
  return [...layer].some(([name, { value }]) => hasSecret(name, value))
}

async function readText(path: string): Promise<{ text: string; mode: number } | null> {
  let file
  try {
    // Looked at before it is opened: opening a pipe waits for a writer, for ever.
    const found = await stat(path)
    if (!found.isFile()) throw problem(path, null, 'It is no file.', 'The configuration is one YAML file.')
    file = await open(path, 'r')
    if (found.size > sizeLimit) throw problem(path, null, 'It is too large.', `The limit is ${sizeLimit} bytes.`)
    const bytes = await file.readFile()
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(bytes), mode: found.mode }
  } catch (error) {
    if (error instanceof TmsError) throw error
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code === 'ENOENT' || code === 'ENOTDIR') return null
    if (code === 'ERR_ENCODING_INVALID_ENCODED_DATA') {
      throw problem(path, null, 'It is not UTF-8.', 'The configuration is text in UTF-8.')
    }
    throw new TmsError(
      {
        code: 'FILE_UNREADABLE',
        what: `${path} can't be read.`,
        why: `The system says ${String(code ?? error)}.`,
        next: [`ls -l ${path}`],
      },
      { cause: error },
    )
  } finally {
    await file?.close()
  }
}

function invalid(path: string, { line, column, keys, stray, message }: YamlProblem): TmsError {
  const place = { line, col: column }
  if (stray === null) {
    const row = settingNames.find((name) => keys.join('.').endsWith(name))
    const about = row ? `${row}: ${settingsTable[row].about}.` : 'It is a map of settings in YAML.'
    return problem(path, place, `${[keys.join('.'), message].filter(Boolean).join(': ')}.`, about)
  }
  const allowed = keys.length === 1 ? [...inFile, 'profile', 'profiles'] : inFile
  const meant = suggest(stray, allowed) ?? allowed.find((name) => name.endsWith(`.${stray}`)) ?? null
  const why = `${meant ? `Did you mean ${meant}? ` : ''}Allowed: ${allowed.join(', ')}.`
  return problem(path, place, `${keys.join('.')} is no setting.`, why)
}

function problem(path: string, at: { line: number; col: number } | null, what: string, why: string): TmsError {
  return new TmsError({
    code: 'CONFIG_INVALID',
    what: `${path}${at ? `:${at.line}:${at.col}` : ''}: ${what}`,
    why,
    next: [at ? `vi +${at.line} ${path}` : `vi ${path}`],
  })
}
