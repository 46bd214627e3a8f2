/**
 * What the text of a policy's SQL is, as far as that can be seen without a database: one statement, of which kind, calling
 * which functions. For messages with a line number; what holds against a hostile text is the role it runs as.
 */
export type Statement = {
  /** Without comments, texts blanked out. As long as the original, so that places stay what they are. */
  readonly code: string
  readonly verb: 'select' | 'insert' | 'update' | 'delete' | null
  /** Where the ; at its end stands; null when there is none. */
  readonly end: number | null
  /** Names that stand before a parenthesis and have a schema. */
  readonly functions: readonly string[]
}

/** The statement, or what is wrong with it and at which line of it (from 0). */
export function readStatement(text: string): Statement | { readonly problem: string; readonly line: number } {
  const wrong = (problem: string, at: number) => ({ problem, line: text.slice(0, at).split('\n').length - 1 })
  const parts: string[] = []
  let depth = 0
  let at = 0
  let end: number | null = null
  while (at < text.length) {
    const hidden = skip(text, at)
    if (hidden !== null) {
      if (hidden.end > text.length) return wrong(hidden.unfinished, at)
      // Names in quotes stay: they may be a function's.
      const shown = text[at] === '"'
      const piece = text.slice(at, hidden.end)
      parts.push(shown ? piece : piece.replaceAll(/[^\n]/g, ' '))
      at = hidden.end
      continue
    }
    const sign = text[at] ?? ''
    if (sign === ';' && !onlyBlankAfter(text, at + 1))
      return wrong('is one statement: there is something after the ;', at)
    if (sign === ';') end = at
    if (sign === '(') depth += 1
    if (sign === ')') depth -= 1
    if (depth < 0) return wrong('closes a parenthesis that was never opened', at)
    parts.push(sign === ';' ? ' ' : sign)
    at += 1
  }
  if (depth > 0) return wrong('leaves a parenthesis open', text.length)
  const code = parts.join('')
  return { code, verb: verbOf(code), end, functions: functionsIn(code) }
}

/** In a name, for Postgres: whatever isn't ASCII is a letter, too. */
const letter = String.raw`A-Za-z_\u0080-\uffff`
const quoteTag = new RegExp(String.raw`^\$([${letter}][${letter}0-9]*)?\$`)
const name = String.raw`(?:[${letter}][${letter}0-9$]*|"(?:[^"]|"")+")`
const call = new RegExp(String.raw`(${name}\s*\.\s*${name})\s*\(`, 'g')
const endOfName = new RegExp(`[${letter}0-9$]$`)

type Hidden = { readonly end: number; readonly unfinished: string }

/** Where what begins here ends, when it is a comment, a text or a quoted name; beyond the text when it doesn't. */
function skip(text: string, at: number): Hidden | null {
  const rest = text.slice(at, at + 80)
  if (rest.startsWith('--')) {
    const end = text.indexOf('\n', at)
    return { end: end < 0 ? text.length : end, unfinished: '' }
  }
  if (rest.startsWith('/*')) return { end: endOfComment(text, at), unfinished: 'has a comment without an end' }
  if (/^e'/i.test(rest) && !endOfName.test(text[at - 1] ?? ''))
    return { end: endOfQuoted(text, at + 2, "'", true), unfinished: 'has a text without an end' }
  if (rest.startsWith("'"))
    return { end: endOfQuoted(text, at + 1, "'", false), unfinished: 'has a text without an end' }
  if (rest.startsWith('"'))
    return { end: endOfQuoted(text, at + 1, '"', false), unfinished: 'has a name in quotes without an end' }
  const tag = quoteTag.exec(rest)?.[0]
  if (tag === undefined || endOfName.test(text[at - 1] ?? '')) return null
  const end = text.indexOf(tag, at + tag.length)
  return { end: end < 0 ? Infinity : end + tag.length, unfinished: 'has a text without an end' }
}

function endOfQuoted(text: string, from: number, quote: string, escapes: boolean): number {
  for (let at = from; at < text.length; at += 1) {
    if (escapes && text[at] === '\\') at += 1
    else if (text[at] === quote) {
      if (text[at + 1] !== quote) return at + 1
      at += 1
    }
  }
  return Infinity
}

/** They nest. */
function endOfComment(text: string, from: number): number {
  let depth = 0
  for (let at = from; at < text.length; at += 1) {
    if (text.startsWith('/*', at)) [depth, at] = [depth + 1, at + 1]
    else if (text.startsWith('*/', at)) {
      ;[depth, at] = [depth - 1, at + 1]
      if (depth === 0) return at + 1
    }
  }
  return Infinity
}

function onlyBlankAfter(text: string, from: number): boolean {
  let at = from
  while (at < text.length) {
    const hidden = /^(--|\/\*)/.test(text.slice(at, at + 2)) ? skip(text, at) : null
    if (hidden !== null) at = hidden.end
    else if (/\s/.test(text[at] ?? '')) at += 1
    else return false
  }
  return true
}

/** The first of the verbs outside of all parentheses: what stands in a WITH is inside. */
function verbOf(code: string): Statement['verb'] {
  let depth = 0
  for (const [word] of code.matchAll(/[()]|"[^"]*"|[A-Za-z_][\w$]*/g)) {
    if (word === '(') depth += 1
    else if (word === ')') depth -= 1
    else if (depth === 0 && /^(select|values|insert|update|delete|merge)$/i.test(word)) {
      const verb = word.toLowerCase()
      return verb === 'insert' || verb === 'update' || verb === 'delete' || verb === 'select' ? verb : null
    }
  }
  return null
}

function functionsIn(code: string): readonly string[] {
  return [...new Set([...code.matchAll(call)].map(([, path = '']) => path.replaceAll(/\s/g, '')))]
}
