import { ProofError } from './bytes.ts'

/** What a hashed or signed document may hold. Decimals and money are strings. */
export type Canonical =
  string | number | boolean | null | readonly Canonical[] | { readonly [key: string]: Canonical | undefined }

/** Deeper is no document of ours, and would end the stack of whoever reads it. */
const deepest = 64

/**
 * RFC 8785, restricted so that every language writes the same bytes: no fractions, no integers from 2^53 on, ASCII keys.
 * A key whose value is undefined is left out, as JSON does.
 */
export function canonicalJson(value: Canonical): string {
  return write(value, deepest)
}

/** A file of canonical JSON: one newline at its end, so that editors and `sha256sum` are happy. */
export function canonicalFile(value: Canonical): string {
  return `${canonicalJson(value)}\n`
}

/** Refuses whatever isn't byte for byte what `canonicalJson` writes: blanks, other orders, repeated keys, other escapes. */
export function parseCanonical(text: string): Canonical {
  let value: Canonical
  try {
    // True because JSON.parse makes nothing else; fractions and large numbers are refused when it is written again.
    value = JSON.parse(text) as Canonical
  } catch (error) {
    throw new ProofError('it is no JSON', { cause: error })
  }
  if (canonicalJson(value) !== text) throw new ProofError('it is not canonical JSON')
  return value
}

export function parseCanonicalFile(text: string): Canonical {
  if (!text.endsWith('\n')) throw new ProofError('the newline at its end is missing')
  return parseCanonical(text.slice(0, -1))
}

function write(value: Canonical, depth: number): string {
  if (depth < 0) throw new ProofError(`it is nested more than ${deepest} levels deep`)
  if (value === null || typeof value === 'boolean') return String(value)
  if (typeof value === 'string') return writeText(value)
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value)) throw new ProofError(`${value} is no integer below 2^53; decimals are strings`)
    return String(value === 0 ? 0 : value)
  }
  if (isList(value)) return `[${value.map((item) => write(item, depth - 1)).join(',')}]`
  if (typeof value !== 'object' || !isPlain(value)) throw new ProofError(`a ${typeof value} is no JSON`)
  const members = Object.keys(value)
    .sort()
    .flatMap((key) => {
      if (!/^[\u0000-\u007f]*$/.test(key)) throw new ProofError('a key is not ASCII')
      const member = value[key]
      return member === undefined ? [] : [`${writeText(key)}:${write(member, depth - 1)}`]
    })
  return `{${members.join(',')}}`
}

function isList(value: Canonical): value is readonly Canonical[] {
  return Array.isArray(value)
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || prototype === Object.prototype
}

/** JSON.stringify escapes as RFC 8785 does, except that it writes half a surrogate pair, which no UTF-8 has. */
function writeText(text: string): string {
  if (/\p{Surrogate}/u.test(text)) throw new ProofError('a string holds half a character')
  return JSON.stringify(text)
}
