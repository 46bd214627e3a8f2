/**
 * A text as the eye reads it: full-width and mathematical letters as ASCII, foreign digits as 0–9, exotic spaces and
 * dashes as plain ones, invisible characters gone. Only for finding: what is printed stays the original text.
 */
export type Folded = {
  readonly text: string
  /** Where a position of the folded text is in the original. */
  readonly origin: (position: number) => number
}

const digit = /\p{Nd}/u
const ignorable = /^\p{DI}/u

/** Whatever may fold into one ASCII character, or into nothing. */
const odd =
  /\p{DI}+|(?![0-9])\p{Nd}|[\u00a0\u00aa\u00b2\u00b3\u00b9\u00ba\u2000-\u200a\u2010-\u2015\u2024\u202f\u205f\u2070-\u209c\u2100-\u214f\u2212\u2460-\u24ff\u3000\u3002\ufe50-\ufe6b\uff01-\uff5e\uff61\u{1d400}-\u{1d7ff}\u{1f100}-\u{1f16f}]/gu

export function fold(text: string): Folded {
  if (!/[^\x00-\x7f]/.test(text)) return { text, origin: (position) => position }
  const pieces: string[] = []
  /** From this folded position on, original = folded + shift. */
  const from: number[] = [0]
  const shift: number[] = [0]
  let copied = 0
  let length = 0
  const known = new Map<string, string>()
  for (const { 0: found, index } of text.matchAll(odd)) {
    const plain = known.get(found) ?? (ignorable.test(found) ? '' : plainCharacter(found))
    if (found.length <= 2) known.set(found, plain)
    if (plain === found) continue
    pieces.push(text.slice(copied, index), plain)
    length += index - copied + plain.length
    copied = index + found.length
    from.push(length)
    shift.push(copied - length)
  }
  pieces.push(text.slice(copied))
  return { text: pieces.join(''), origin: (position) => position + (shift[lastAtOrBelow(from, position)] ?? 0) }
}

function plainCharacter(character: string): string {
  const normal = character.normalize('NFKC')
  if (normal.length === 1 && normal < '\x80') return normal
  if (/^[\u2010-\u2015\u2212]$/u.test(character)) return '-'
  if (character === '\u3002' || character === '\uff61') return '.'
  return digit.test(character) ? String(digitValue(character)) : character
}

/** Unicode keeps the ten digits of a script together, zero first. */
function digitValue(character: string): number {
  const point = character.codePointAt(0) ?? 0
  let before = 0
  while (before < 60 && digit.test(String.fromCodePoint(point - before - 1))) before += 1
  return before % 10
}

function lastAtOrBelow(sorted: readonly number[], position: number): number {
  let low = 0
  let high = sorted.length - 1
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if ((sorted[middle] ?? Infinity) <= position) low = middle
    else high = middle - 1
  }
  return low
}
