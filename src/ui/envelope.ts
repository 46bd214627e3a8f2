import type { ErrorCode } from '../errors.ts'

/** What `--json` prints, on one line, for every command. For streams it is the last line. */
export type Envelope = {
  readonly ok: boolean
  readonly command: string
  readonly data: unknown
  readonly warnings: readonly string[]
  readonly error: {
    readonly code: ErrorCode
    readonly message: string
    readonly why: string
    readonly next: readonly string[]
  } | null
}

/** JSON stringifies C0 controls and lone surrogates as escapes; a terminal obeys these too. */
const obeyed = /[\u007f-\u009f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g

/** One line of JSON that any value survives: a BigInt becomes text (as wide integers do everywhere else). */
export function toJson(value: unknown): string {
  const json = JSON.stringify(value, (_key, part: unknown) => (typeof part === 'bigint' ? part.toString() : part))
  return json.replace(obeyed, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
