import { types } from 'node:util'
import { kindOfField, type FieldKind } from './fields.ts'
import { cutText, fit, type Json } from './fit.ts'
import { fold } from './fold.ts'
import { findSecrets } from './patterns.ts'

export type { Json } from './fit.ts'

/**
 * The text with everything secret or personal in it replaced by `[redacted:<kind>]`. Redacting again changes nothing:
 * it goes on until nothing more is found, because what a replacement leaves side by side may read as something new.
 */
export function redactText(text: string): string {
  if (!isSuspicious(text)) return text
  let before = text
  for (let pass = 0; pass < mostPasses; pass += 1) {
    const after = replaceSecrets(before)
    if (after === before) return after
    before = after
  }
  // Two passes are usual. A text that is never done was made to be so.
  return '[redacted:text]'
}

const mostPasses = 12

/** A cheap look at the characters: no secret is without one of these. */
function isSuspicious(text: string): boolean {
  return suspicious.test(text)
}

// Six digits near each other are fewer than any number of a person has; whatever isn't ASCII gets the careful look.
const suspicious =
  /[^\x00-\x7f]|[@=:<%/]|--|[sprk]k[_-]|(?:gh[oprsu]|github_pat|whsec|npm|shp[a-z]{2}|hf|dop_v1|sbp|sb_secret)_|(?:xox[a-z](?:\.xox[a-z])?|xapp|gl[a-z]{2,5}|pypi|override|AGE)-|\d(?:[^\d]{0,3}\d){5}|[Bb]earer|BEARER|[Bb]asic|BASIC|assword['" \t\r\n\\]|PASSWORD['" \t]|A[KSBC][IC]A|AIza|ya29|SG\.|ey[JA]|Failing row/

function replaceSecrets(text: string): string {
  const plain = replaceIn(text, (folded) => folded)
  // In JSON inside a text a line ends with the letter n, and what follows no longer begins a word.
  return plain.includes('\\') ? replaceIn(plain, withoutEscapes) : plain
}

/** Of the same length, so that places stay places. */
function withoutEscapes(text: string): string {
  return text.replace(/\\(?:[bfnrt]|u[0-9a-f]{4})/gi, (escape) => ' '.repeat(escape.length))
}

function replaceIn(text: string, seen: (folded: string) => string): string {
  const folded = fold(text)
  const spans = findSecrets(seen(folded.text))
  if (spans.length === 0) return text
  const pieces: string[] = []
  let copied = 0
  for (const { start, end, kind } of spans) {
    pieces.push(text.slice(copied, folded.origin(start)), `[redacted:${kind}]`)
    copied = folded.origin(end)
  }
  pieces.push(text.slice(copied))
  return pieces.join('')
}

export type RedactOptions = {
  /** Bytes of JSON text, at most. What is cut away is counted in the place where it was. */
  readonly limit?: number
}

const usualLimit = 16 * 1024
/** Less has no room for what says that something was cut. */
const leastLimit = 256
const deepest = 16
/** Of one string: what is behind it would be cut away anyway. */
const longestText = 1024 * 1024
/** Of all strings of one value. */
const mostText = 4 * longestText
/** Costs nothing, and is often what matters. */
const shortText = 256
/** A secret that the bound above cuts in two ends within this, and what is left of it must not be shown. */
const overlap = 8 * 1024

/**
 * Any value as JSON without secrets: by the names of fields and by what stands in strings, keys included. Never throws,
 * never changes what it was given, and looks only at what can end up within the limit.
 */
export function redact(value: unknown, options: RedactOptions = {}): Json {
  const limit = Math.max(options.limit ?? usualLimit, leastLimit)
  const walk: Walk = { ancestors: new Set(), nodesLeft: limit, textLeft: mostText }
  try {
    // First everything, then the cut: a secret across the cut would be half a secret, and no pattern knows halves.
    return fit(safely(walk, value, null, 0) ?? null, limit)
  } catch {
    return unreadable
  }
}

export type RedactedError = { readonly name: string; readonly message: string; readonly code?: string }

/** What may be kept of an error: no stack, no cause, no fields. */
export function redactError(error: unknown): RedactedError {
  if (!isErrorLike(error)) {
    const value = redact(error, { limit: longestMessage })
    return { name: 'Error', message: typeof value === 'string' ? value : JSON.stringify(value) }
  }
  const [name, message, code] = [read(error, 'name'), read(error, 'message'), read(error, 'code')]
  return {
    name: short(name === '' ? 'Error' : name, 'Error'),
    message: short(message, ''),
    ...(typeof code === 'string' || typeof code === 'number' ? { code: short(String(code), '') } : {}),
  }
}

const longestMessage = 4 * 1024

function short(text: unknown, otherwise: string): string {
  return typeof text === 'string' ? cutText(wholeText(text), longestMessage) : otherwise
}

const unreadable = '[unreadable]'

type Walk = {
  readonly ancestors: Set<object>
  /** Every value takes at least one byte of JSON, so more than the limit allows need not be looked at. */
  nodesLeft: number
  textLeft: number
}

/** Undefined is what JSON leaves out: functions, symbols, undefined itself. */
function safely(walk: Walk, value: unknown, field: FieldKind | null, depth: number): Json | undefined {
  walk.nodesLeft -= 1
  try {
    return plain(walk, value, field, depth)
  } catch {
    // Getters, toJSON and the traps of proxies run foreign code.
    return unreadable
  }
}

function plain(walk: Walk, value: unknown, field: FieldKind | null, depth: number): Json | undefined {
  switch (typeof value) {
    case 'string':
      return value === '' ? value : field ? mark(field) : boundedText(walk, value)
    case 'number':
      return field && !field.countable ? mark(field) : plainNumber(value)
    case 'bigint':
      return field && !field.countable ? mark(field) : boundedText(walk, String(value))
    case 'boolean':
      return value
    case 'undefined':
    case 'function':
    case 'symbol':
      return undefined
    case 'object':
      if (value === null) return null
      if (field && !field.countable) return mark(field)
      return plainObject(walk, value, field, depth)
  }
}

function mark({ kind }: FieldKind): string {
  return `[redacted:${kind}]`
}

/** A card number may have become a number on its way. */
function plainNumber(value: number): Json {
  if (!Number.isFinite(value)) return String(value)
  if (!Number.isInteger(value) || Math.abs(value) < 1e12) return value
  const text = String(value)
  const safe = redactText(text)
  return safe === text ? value : safe
}

function boundedText(walk: Walk, text: string): string {
  if (text.length > Math.max(walk.textLeft, shortText)) return `[cut: ${text.length} characters]`
  walk.textLeft -= Math.min(text.length, longestText)
  return wholeText(text)
}

function wholeText(text: string): string {
  if (text.length <= longestText) return redactText(text)
  const safe = redactText(text.slice(0, longestText))
  return `${safe.slice(0, -overlap)}[cut: ${text.length - longestText} characters]`
}

function plainObject(walk: Walk, value: object, field: FieldKind | null, depth: number): Json | undefined {
  if (walk.ancestors.has(value)) return '[circular]'
  if (depth >= deepest) return '[too deep]'
  walk.ancestors.add(value)
  try {
    return contents(walk, value, field, depth + 1)
  } finally {
    walk.ancestors.delete(value)
  }
}

function contents(walk: Walk, value: object, field: FieldKind | null, depth: number): Json | undefined {
  const size = binarySize(value)
  if (size !== null) return `[${size} bytes]`
  if (Array.isArray(value)) return plainList(walk, value, field, depth)
  if (types.isSet(value)) return plainList(walk, firstOf(walk, Set.prototype.values.call(value)), field, depth)
  if (types.isMap(value)) {
    const entries: [unknown, unknown][] = firstOf(walk, Map.prototype.entries.call(value))
    return entries.every(([key]) => typeof key === 'string')
      ? plainFields(
          walk,
          entries.map(([key, item]) => [String(key), () => item]),
          field,
          depth,
        )
      : plainList(walk, entries, field, depth)
  }
  if (types.isRegExp(value)) return boundedText(walk, String(value))
  if (types.isBoxedPrimitive(value)) return safely(walk, primitiveOf(value), field, depth)
  if (isErrorLike(value)) return plainFields(walk, fieldsOfError(value), field, depth)
  const own = jsonOf(value)
  if (own.given) return safely(walk, own.value, field, depth)
  return plainFields(walk, fieldsOf(value), field, depth)
}

function binarySize(value: object): number | null {
  if (ArrayBuffer.isView(value)) return value.byteLength
  if (types.isAnyArrayBuffer(value)) return value.byteLength
  // A Buffer that went through JSON.
  const data = read(value, 'type') === 'Buffer' ? read(value, 'data') : null
  return Array.isArray(data) ? data.length : null
}

function primitiveOf(boxed: object): unknown {
  return boxed.valueOf()
}

/** A toJSON that throws or gives itself is as good as none. */
function jsonOf(value: object): { readonly given: boolean; readonly value?: unknown } {
  if (types.isDate(value))
    return { given: true, value: Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString() }
  try {
    const toJson: unknown = Reflect.get(value, 'toJSON')
    if (typeof toJson !== 'function') return { given: false }
    const json: unknown = Reflect.apply(toJson, value, [])
    return { given: json !== value, value: json }
  } catch {
    return { given: false }
  }
}

function firstOf<T>(walk: Walk, items: Iterable<T>): T[] {
  const first: T[] = []
  for (const item of items) {
    first.push(item)
    if (first.length > walk.nodesLeft) break
  }
  return first
}

function plainList(walk: Walk, list: readonly unknown[], field: FieldKind | null, depth: number): Json {
  const result: Json[] = []
  let next = field
  const { length } = list
  for (let index = 0; index < length; index += 1) {
    if (walk.nodesLeft <= 0) {
      result.push(`[cut: ${length - index} items]`)
      break
    }
    const item = attempt(() => list[index])
    const shown = safely(walk, item, next, depth) ?? null
    result.push(shown)
    // as it was, and as it is shown: who reads that again must find nothing new
    next = field ?? kindOfNext(item, index, length) ?? kindOfNext(shown, index, length)
  }
  return result
}

/** `['authorization', '…']`, as headers are listed, and `['--password', '…']`, as arguments are. */
function kindOfNext(item: unknown, index: number, length: number): FieldKind | null {
  if (typeof item !== 'string' || item.length > 64) return null
  if (/^--?[a-z][\w-]*$/i.test(item) || (length === 2 && index === 0)) return kindOfField(item)
  return /^(?:(?:proxy-)?authorization|(?:set-)?cookie|(?:x-[a-z-]*)?(?:token|api-?key|secret)|x-[a-z-]*key)$/i.test(
    item,
  )
    ? kindOfField(item)
    : null
}

type Field = readonly [name: string, value: () => unknown]

function fieldsOf(value: object): Field[] {
  return Object.keys(value).map((name) => [name, (): unknown => Reflect.get(value, name)])
}

/** What JSON.stringify loses, and whatever the library that threw it has put on it. */
function fieldsOfError(error: object): Field[] {
  const usual = ['name', 'message', 'code', 'cause', 'errors', 'stack'].filter(
    (name) => read(error, name) !== undefined,
  )
  const others = Object.keys(error).filter((name) => !usual.includes(name))
  return [...usual, ...others].map((name) => [name, (): unknown => Reflect.get(error, name)])
}

function plainFields(walk: Walk, fields: readonly Field[], field: FieldKind | null, depth: number): Json {
  const most = Math.max(walk.nodesLeft, 1)
  const shown = fields.slice(0, most)
  const named = field ? null : kindOfNamedValue(shown)
  const items = shown.map(([name, get], place) => {
    const kind = field ?? (/^(?:v|val|values?)$/i.test(name) ? named : null) ?? kindOfField(name)
    return { name, place, kind, value: attempt(get) }
  })
  const inside = items.filter(({ value }) => typeof value === 'object' && value !== null)
  const done: (Json | undefined)[] = []
  for (const item of items) {
    if (typeof item.value !== 'object' || item.value === null)
      done[item.place] = safely(walk, item.value, item.kind, depth)
  }
  // A long list must not use up what the fields behind it need: each gets a share, and leaves what it doesn't take.
  for (const [index, item] of inside.entries()) {
    const rest = walk.nodesLeft
    const share = Math.ceil(rest / (inside.length - index))
    walk.nodesLeft = share
    done[item.place] = safely(walk, item.value, item.kind, depth)
    walk.nodesLeft += rest - share
  }
  const result = new Map<string, Json>()
  const taken = new Map<string, number>()
  for (const { name, place } of items) {
    const json = done[place]
    if (json === undefined) continue
    const safe = boundedText(walk, name)
    const times = (taken.get(safe) ?? 0) + 1
    taken.set(safe, times)
    // Two keys that were two addresses stay two keys.
    result.set(times === 1 ? safe : `(${times}) ${safe}`, json)
  }
  if (fields.length > most) result.set('[cut]', `${fields.length - most} fields`)
  return Object.fromEntries(result)
}

function attempt(get: () => unknown): unknown {
  try {
    return get()
  } catch {
    return unreadable
  }
}

/** `{name: 'Authorization', value: '…'}`: headers, parameters and form fields are often listed like this. */
function kindOfNamedValue(fields: readonly Field[]): FieldKind | null {
  for (const [name, get] of fields) {
    if (!/^(?:name|k|key|field|header|title|label|id|param|parameter|property|variable)$/i.test(name)) continue
    const value = attempt(get)
    const kind = typeof value === 'string' ? kindOfField(value) : null
    if (kind) return kind
  }
  return null
}

/** Errors of other realms and of libraries that only look like one. */
function isErrorLike(value: unknown): value is object {
  try {
    if (typeof value !== 'object' || value === null) return false
    return types.isNativeError(value) || value instanceof Error
  } catch {
    return false
  }
}

function read(value: object, name: string): unknown {
  try {
    return Reflect.get(value, name)
  } catch {
    return undefined
  }
}
