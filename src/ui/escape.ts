/**
 * Characters a terminal obeys instead of showing: C0 and C1 controls, DEL, and the marks that reorder text. Lone
 * surrogates are no text at all. Data may hold any of them; a flag's value must not be able to rewrite the line above.
 */
const unprintable = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]|\p{Surrogate}/gu

const short: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

/** The text with everything a terminal would obey made visible. */
export function printable(text: string): string {
  return text.replace(unprintable, (character) => short[character] ?? codePoint(character))
}

/** Like `printable`, for text of several lines whose line breaks are our own. */
export function printableLines(text: string): string {
  return text.split('\n').map(printable).join('\n')
}

function codePoint(character: string): string {
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`
}
