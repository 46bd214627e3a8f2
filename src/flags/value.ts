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
    case 'json':
      try {
        const value: unknown = JSON.parse(text)
        // True because JSON.parse gives nothing but JSON.
        return value as FlagValue
      } catch {
        throw wrong('JSON')
      }
  }
}

/** The largest value the database stores. */
const longest = 16_384

/** Text that Postgres cannot hold, or will not, is turned away here with its reason. */
export function checkText(name: string, text: string): void {
  const problem = text.includes('\0')
    ? 'it contains a NUL character'
    : !text.isWellFormed()
      ? 'it contains half a character (a lone surrogate)'
      : Buffer.byteLength(text) > longest
        ? `it has ${Buffer.byteLength(text)} bytes, and a value has at most ${longest}`
        : null
  if (problem === null) return
  throw new TmsError({
    code: 'INPUT_INVALID',
    what: `this value of ${name} cannot be stored`,
    why: problem,
    next: ['tms flags set --help'],
  })
}
