import type { Contract } from '../drivers/contract.ts'
import { TmsError } from '../errors.ts'

type Flag = Contract['flags_get']['result']['flag']
export type FlagValue = Flag['value']

/** What a person typed, as the type the flag has. The database checks again; this says it before anything is sent. */
export function parseValue(flag: Pick<Flag, 'key' | 'type'>, text: string): FlagValue {
  const wrong = (takes: string): TmsError =>
    new TmsError({
      code: 'INPUT_INVALID',
      what: `${flag.key} takes ${takes}`,
      why: text.length > 60 ? `what was given has ${text.length} characters` : `"${text}" is not that`,
      next: [`tms flags get ${flag.key}`],
    })
  checkText(flag.key, text)
  switch (flag.type) {
    case 'boolean':
      if (/^(true|on|yes)$/i.test(text)) return true
      if (/^(false|off|no)$/i.test(text)) return false
      throw wrong('true or false')
    case 'integer':
      if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(Number(text))) throw wrong('a whole number')
      return Number(text)
    case 'decimal':
      if (!/^-?\d{1,15}(\.\d{1,9})?$/.test(text)) throw wrong('a decimal number with a point, like 12.50')
      return text
    case 'string':
      return text
    case 'json': {
      const value = parseJson(text)
      if (value === undefined) throw wrong('JSON')
      const changed = whatChanges(text, value)
      if (changed !== null) throw cannotBeStored(flag.key, changed)
      return value
    }
  }
}

function parseJson(text: string): FlagValue | undefined {
  try {
    // True because JSON.parse gives nothing but JSON.
    return JSON.parse(text) as FlagValue
  } catch {
    return undefined
  }
}

/** What would be stored otherwise than it was typed: JSON.parse makes null of 1e400 and rounds long numbers, without a word. */
function whatChanges(text: string, value: FlagValue): string | null {
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:e[-+]?\d+)?/gi)) {
    if (!token.startsWith('"') && !keepsItsDigits(token)) {
      return `the number ${token.slice(0, 40)} has more digits than a number keeps; give it as text: "${token.slice(0, 40)}"`
    }
  }
  return unstorable(value)
}

function keepsItsDigits(number: string): boolean {
  const read = Number(number)
  return Number.isFinite(read) && plainDigits(String(read)) === plainDigits(number)
}

/** `-12.50` and `-1.25e1` are both `-125e-1`. */
function plainDigits(number: string): string {
  const [, sign = '', whole = '', fraction = '', exponent = '0'] =
    /^(-?)(\d+)(?:\.(\d+))?(?:e([-+]?\d+))?$/i.exec(number) ?? []
  const digits = `${whole}${fraction}`.replace(/^0+/, '')
  const significant = digits.replace(/0+$/, '')
  if (significant === '') return '0'
  return `${sign}${significant}e${Number(exponent) - fraction.length + digits.length - significant.length}`
}

/** As the database has it: reading what is nested deeper takes more of the stack than there is. */
const deepest = 32

function unstorable(value: FlagValue, depth = 0): string | null {
  if (typeof value === 'string') return textProblem(value)
  if (typeof value !== 'object' || value === null) return null
  if (depth === deepest) return `it is nested deeper than ${deepest} levels`
  for (const [key, inner] of Object.entries(value)) {
    const problem = key === '__proto__' ? 'it has a key __proto__' : (textProblem(key) ?? unstorable(inner, depth + 1))
    if (problem !== null) return problem
  }
  return null
}

/** The largest value the database stores. */
const longest = 16_384

/** Text that Postgres cannot hold, or will not, is turned away here with its reason. */
export function checkText(name: string, text: string): void {
  const problem = textProblem(text)
  if (problem !== null) throw cannotBeStored(name, problem)
}

function textProblem(text: string): string | null {
  if (text.includes('\0')) return 'it contains a NUL character'
  if (!text.isWellFormed()) return 'it contains half a character (a lone surrogate)'
  const size = Buffer.byteLength(text)
  return size > longest ? `it has ${size} bytes, and a value has at most ${longest}` : null
}

function cannotBeStored(name: string, why: string): TmsError {
  return new TmsError({
    code: 'INPUT_INVALID',
    what: `this value of ${name} cannot be stored`,
    why,
    next: ['tms flags set --help'],
  })
}
