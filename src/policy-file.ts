import { readFile, stat } from 'node:fs/promises'
import { isAlias, isMap, isNode, isPair, isScalar, isSeq, LineCounter, parseDocument, visit, type Document } from 'yaml'
import * as z from 'zod'
import { suggest } from './suggest.ts'

/** What is wrong in a policy file, and where: one-based, as editors count. */
export type FileProblem = {
  readonly path: string
  readonly line: number
  readonly column: number
  /** What it is about: `limits.timeout`, `functions.0.name`; empty for the file as a whole. */
  readonly keys: string
  readonly message: string
}

export type Keys = readonly (string | number)[]

export type PolicyFile<T> = {
  readonly value: T
  /** A problem at the place where `keys` is written, or at the nearest thing around it that is. */
  readonly problemAt: (keys: Keys, message: string) => FileProblem
  /** The line on which it is written; null when it isn't. */
  readonly lineOf: (keys: Keys) => number | null
  /** A literal block (`|`), whose lines are the file's: its text, and the line it begins on. Null: it is written otherwise. */
  readonly blockOf: (keys: Keys) => { readonly text: string; readonly line: number } | null
}

export type ParsedPolicyFile<T> = PolicyFile<T> | { readonly problems: readonly FileProblem[] }

/** Policies are some dozen lines. What is larger was not written as one, and would be parsed at each start. */
const maxBytes = 64 * 1024
/** More than anybody mends in one go. */
const maxProblems = 100

/**
 * Reads a policy file strictly: all of its problems, each with its place. Null: there is no such file. What can't be read
 * or understood is a problem and never an exception, so that one bad file takes nothing else with it.
 */
export async function readPolicyFile<T extends z.ZodType>(
  path: string,
  schema: T,
): Promise<ParsedPolicyFile<z.output<T>> | null> {
  const whole = (message: string) => ({ problems: [{ path, line: 1, column: 1, keys: '', message }] })
  try {
    // A pipe or a device would keep the reader waiting for ever.
    const about = await stat(path)
    if (!about.isFile()) return whole('is not an ordinary file')
    if (about.size > maxBytes) return whole(`is larger than ${maxBytes / 1024} KB`)
    return parsePolicyFile(path, await readFile(path, 'utf8'), schema)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    return code === 'ENOENT' || code === 'ENOTDIR' ? null : whole(`can't be read (${code})`)
  }
}

export function parsePolicyFile<T extends z.ZodType>(
  path: string,
  text: string,
  schema: T,
): ParsedPolicyFile<z.output<T>> {
  const lines = new LineCounter()
  const problem = (offset: number, keys: Keys, message: string): FileProblem => {
    const { line, col } = lines.linePos(offset)
    // Both are 0 where the text is empty.
    return { path, line: Math.max(line, 1), column: Math.max(col, 1), keys: keys.join('.'), message }
  }
  try {
    const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: false })
    const broken = [...document.errors, ...document.warnings]
      .slice(0, maxProblems)
      .map((error) => problem(error.pos[0], [], error.message))
    if (broken.length > 0) return { problems: broken }
    const odd = oddities(document)
      .slice(0, maxProblems)
      .map(({ offset, message }) => problem(offset, [], message))
    if (odd.length > 0) return { problems: odd }

    const content: unknown = document.toJS({ maxAliasCount: 50 }) ?? {}
    const parsed = schema.safeParse(content)
    const problemAt = (keys: Keys, message: string) => problem(placeOf(document, keys).offset, keys, message)
    if (!parsed.success) {
      const problems = parsed.error.issues.slice(0, maxProblems).flatMap((issue) => {
        const keys = issue.path.map((key) => (typeof key === 'number' ? key : String(key)))
        if (issue.code !== 'unrecognized_keys') return [problemAt(keys, messageOf(issue.message, content, keys))]
        return issue.keys
          .slice(0, maxProblems)
          .map((key) => problemAt([...keys, key], unknownKey(key, knownKeys(schema, keys))))
      })
      return { problems }
    }
    const lineOf = (keys: Keys) => {
      const { offset, found } = placeOf(document, keys)
      return found ? lines.linePos(offset).line : null
    }
    const blockOf = (keys: Keys) => {
      const node = document.getIn(keys, true)
      if (!isScalar(node) || node.type !== 'BLOCK_LITERAL' || typeof node.value !== 'string') return null
      return { text: node.value, line: lines.linePos(node.range?.[0] ?? 0).line + 1 }
    }
    return { value: parsed.data, problemAt, lineOf, blockOf }
  } catch (error) {
    // Aliases that expand too far, a structure that contains itself, nesting that overruns the stack.
    return { problems: [problem(0, [], error instanceof Error ? error.message : String(error))] }
  }
}

export function inOrder<T extends FileProblem>(problems: readonly T[]): readonly T[] {
  return problems.toSorted((a, b) => a.path.localeCompare(b.path) || a.line - b.line || a.column - b.column)
}

/** `policies/agents/rates.yaml:7:3: limits.timeout: takes a duration: 30s` */
export function problemLine({ path, line, column, keys, message }: FileProblem): string {
  return `${path}:${line}:${column}: ${keys === '' ? '' : `${keys}: `}${message}`
}

/**
 * What the parser lets through or complains about without a place: aliases that lead nowhere, keys that aren't text, and
 * `__proto__`, which schemas skip instead of refusing it.
 */
function oddities(document: Document): { readonly offset: number; readonly message: string }[] {
  const odd: { offset: number; message: string }[] = []
  const anchors = new Set<string>()
  visit(document, {
    Value(_, { anchor }) {
      if (anchor !== undefined) anchors.add(anchor)
    },
    Alias(_, alias) {
      if (anchors.has(alias.source)) return
      odd.push({ offset: alias.range?.[0] ?? 0, message: `Unresolved alias ${alias.source}` })
    },
    // Not by the parser's own option, which compares each key with all before it: seconds for some thousand keys.
    Map(_, { anchor, items }) {
      if (anchor !== undefined) anchors.add(anchor)
      const keys = new Set<unknown>()
      for (const { key } of items) {
        if (!isScalar(key)) continue
        if (keys.has(key.value)) {
          odd.push({ offset: key.range?.[0] ?? 0, message: `"${String(key.value)}" is written twice` })
        }
        keys.add(key.value)
      }
    },
    Pair(_, { key }) {
      const offset = isNode(key) ? (key.range?.[0] ?? 0) : 0
      if (!isScalar(key) || typeof key.value !== 'string') odd.push({ offset, message: 'a key is text' })
      else if (key.value === '__proto__') odd.push({ offset, message: '"__proto__" is not known here' })
    },
  })
  return odd
}

function messageOf(message: string, content: unknown, keys: Keys): string {
  let value = content
  for (const key of keys) {
    if (typeof value !== 'object' || value === null) return message
    value = Object.entries(value).find(([name]) => name === String(key))?.[1]
  }
  if (value === undefined) return `is missing: it ${message}`
  return value === null ? `is empty: it ${message}` : message
}

function unknownKey(key: string, known: readonly string[]): string {
  const meant = suggest(key, known)
  return `"${key}" is not known here${meant === null ? `; there are ${known.join(', ')}` : `. Did you mean ${meant}?`}`
}

function knownKeys(schema: unknown, keys: Keys): readonly string[] {
  if (schema instanceof z.ZodPrefault || schema instanceof z.ZodDefault || schema instanceof z.ZodOptional) {
    return knownKeys(schema.unwrap(), keys)
  }
  if (schema instanceof z.ZodPipe) return knownKeys(schema.out, keys)
  const [first, ...rest] = keys
  if (schema instanceof z.ZodArray) return knownKeys(schema.element, rest)
  if (!(schema instanceof z.ZodObject)) return []
  const shape: Readonly<Record<string, unknown>> = schema.shape
  return first === undefined ? Object.keys(shape) : knownKeys(shape[String(first)], rest)
}

/** Where `keys` is written, as an offset: the key in a map, the item in a list. */
function placeOf(document: Document, keys: Keys): { readonly offset: number; readonly found: boolean } {
  let node: unknown = document.contents
  let offset = isNode(node) ? (node.range?.[0] ?? 0) : 0
  for (const key of keys) {
    if (isAlias(node)) node = node.resolve(document)
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(key))
      if (!pair) return { offset, found: false }
      if (isNode(pair.key)) offset = pair.key.range?.[0] ?? offset
      node = pair.value
    } else if (isSeq(node)) {
      const item: unknown = node.items[Number(key)]
      if (!isNode(item) || isPair(item)) return { offset, found: false }
      offset = item.range?.[0] ?? offset
      node = item
    } else {
      return { offset, found: false }
    }
  }
  return { offset, found: true }
}
