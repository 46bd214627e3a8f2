import {
  isMap,
  isNode,
  isScalar,
  LineCounter,
  parseDocument,
  type Document,
  type ErrorCode,
  type YAMLError,
} from 'yaml'
import type * as z from 'zod'

/** What is wrong with a YAML text, and where: one-based, as editors count. */
export type YamlProblem = {
  readonly line: number
  readonly column: number
  readonly keys: readonly string[]
  /** The last of `keys`, when nothing of that name belongs there. */
  readonly stray: string | null
  readonly message: string
}

export type ParsedYaml<T> = {
  readonly value: T
  /** The line on which the key is written. */
  readonly lineOf: (keys: readonly string[]) => number
}

/**
 * Parses YAML against a schema. The first problem, with its place, when it doesn't fit. Aliases that expand too far and
 * nesting that overruns the parser's stack are problems too, not crashes: these files are written by people.
 */
export function parseYaml<T extends z.ZodType>(
  text: string,
  schema: T,
): ParsedYaml<z.output<T>> | { readonly problem: YamlProblem } {
  const lines = new LineCounter()
  const at = (offset: number, keys: readonly string[], message: string, stray: string | null = null) => {
    const { line, col } = lines.linePos(offset)
    return { problem: { line, column: col, keys, stray, message } }
  }
  let document: Document
  let content: unknown
  try {
    document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true })
    const first = document.errors[0] ?? document.warnings[0]
    if (first) return at(placeOf(first, document.errors), [], ownWords[first.code] ?? first.message)
    content = document.toJS({ maxAliasCount: 50 }) ?? {}
  } catch (error) {
    return at(0, [], error instanceof Error ? error.message : String(error))
  }
  const parsed = schema.safeParse(content)
  if (parsed.success) {
    return { value: parsed.data, lineOf: (keys) => lines.linePos(offsetOf(document, keys)).line }
  }
  const issue = parsed.error.issues[0]
  const keys = (issue?.path ?? []).map(String)
  const stray = issue?.code === 'unrecognized_keys' ? (issue.keys[0] ?? null) : null
  if (stray !== null) {
    const path = [...keys, stray]
    return at(offsetOf(document, path), path, `"${stray}" is not known here`, stray)
  }
  return at(offsetOf(document, keys), keys, issue?.message ?? 'is wrong')
}

/** Where the parser's own words are for programmers, or about something else than what is wrong. */
const ownWords: Partial<Record<ErrorCode, string>> = {
  MULTIPLE_DOCS: 'a second document begins here, and a file is one document',
  BLOCK_AS_IMPLICIT_KEY:
    'a key stands within the value of another: its indentation is wrong, or the value needs quotes',
}

/** A value that goes on with a key on a later line is reported where it begins; what is wrong is that key. */
function placeOf(first: YAMLError, all: readonly YAMLError[]): number {
  const later = all.find(({ code, pos }) => code === 'MULTILINE_IMPLICIT_KEY' && pos[0] === first.pos[0])
  return later ? later.pos[1] : first.pos[0]
}

/** Where a key is written; the nearest map around it when it is reached through an alias. */
function offsetOf(document: Document, keys: readonly string[]): number {
  let node: unknown = document.contents
  let offset = isNode(node) ? (node.range?.[0] ?? 0) : 0
  for (const key of keys) {
    if (!isMap(node)) return offset
    const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === key)
    if (!pair) return offset
    if (isNode(pair.key)) offset = pair.key.range?.[0] ?? offset
    node = pair.value
  }
  return offset
}
