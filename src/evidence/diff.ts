import type { Canonical } from '../proof/canonical.ts'
import { factsOf } from './list.ts'

/** Which facts are others on one day than on another. */

export type Change = {
  readonly file: string
  /** Where: `flags / autonomy.mode / value`. */
  readonly what: string
  /** Null: not there. Values that are no single one are told by their number. */
  readonly before: string | null
  readonly after: string | null
}

export type EvidenceDiff = {
  readonly from: string
  readonly to: string
  readonly changes: readonly Change[]
  readonly same: readonly string[]
}

/** What is another one each day by nature, and says nothing. */
const ofTheDay: ReadonlySet<string> = new Set(['day', 'date', 'as_of', 'from', 'until', 'to', 'observed_at', 'window'])
/** What names the items of a list. */
const names = ['key', 'name', 'id', 'slo', 'action', 'criterion', 'agent', 'tenant', 'at', 'seq'] as const

export async function diffEvidence(root: string, from: string, to: string): Promise<EvidenceDiff> {
  const [before, after] = await Promise.all([factsOf(root, from), factsOf(root, to)])
  const changes: Change[] = []
  const same: string[] = []
  for (const file of new Set([...before.keys(), ...after.keys()])) {
    const found = changesBetween(file, before.get(file), after.get(file))
    if (found.length === 0) same.push(file)
    changes.push(...found)
  }
  return { from, to, changes, same }
}

/** Two documents, down to the single values. Items of lists are those with the same name, wherever they stand. */
export function changesBetween(
  file: string,
  before: Canonical | undefined,
  after: Canonical | undefined,
): readonly Change[] {
  const changes: Change[] = []
  walk([], before, after)
  return changes

  function walk(path: readonly string[], a: Canonical | undefined, b: Canonical | undefined): void {
    if (isList(a) && isList(b)) members(path, byName(a), byName(b))
    else if (isObject(a) && isObject(b)) members(path, new Map(Object.entries(a)), new Map(Object.entries(b)))
    else if (valueText(a) !== valueText(b)) {
      changes.push({ file, what: path.join(' / '), before: valueText(a), after: valueText(b) })
    }
  }

  function members(
    path: readonly string[],
    a: ReadonlyMap<string, Canonical | undefined>,
    b: ReadonlyMap<string, Canonical | undefined>,
  ): void {
    for (const name of new Set([...a.keys(), ...b.keys()])) {
      if (!ofTheDay.has(name)) walk([...path, name], a.get(name), b.get(name))
    }
  }
}

function byName(list: readonly Canonical[]): ReadonlyMap<string, Canonical> {
  const items = new Map<string, Canonical>()
  for (const [index, item] of list.entries()) {
    const parts = isObject(item)
      ? names.flatMap((name) => (typeof item[name] === 'string' || typeof item[name] === 'number' ? [item[name]] : []))
      : []
    const name = isObject(item) ? parts.join(' ') || `#${index + 1}` : valueText(item) || `#${index + 1}`
    items.set(items.has(name) ? `${name} #${index + 1}` : name, item)
  }
  return items
}

function valueText(value: Canonical | undefined): string | null {
  if (value === undefined) return null
  if (typeof value === 'string') return value
  if (isList(value)) return `a list of ${value.length}`
  if (isObject(value)) return `an entry of ${Object.keys(value).length} values`
  return String(value)
}

function isList(value: Canonical | undefined): value is readonly Canonical[] {
  return Array.isArray(value)
}

function isObject(value: Canonical | undefined): value is { readonly [key: string]: Canonical | undefined } {
  return typeof value === 'object' && value !== null && !isList(value)
}
