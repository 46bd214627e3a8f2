const wide =
  /\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|\p{Script=Hangul}|\p{Emoji_Presentation}|[\uff01-\uff60]/u
const narrow = /\p{Mark}|\u200b|\u200d/u

/** Columns the text takes on a terminal. */
export function displayWidth(text: string): number {
  let width = 0
  for (const character of text) width += narrow.test(character) ? 0 : wide.test(character) ? 2 : 1
  return width
}

/** Breaks at spaces, and inside a word only when it is longer than a line. */
export function wrap(text: string, width: number): string[] {
  return fill(text, width).flatMap((line) => chop(line, width))
}

/** What may be copied, in several lines: broken at spaces only, so that a path or an address stays whole. */
export function wrapLines(text: string, width: number, indent = ''): string {
  return text
    .split('\n')
    .flatMap((line) => fill(line, width - indent.length).map((part) => indent + part))
    .join('\n')
}

function fill(text: string, width: number): string[] {
  if (fits(text, width)) return [text]
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line === '' || !fits(`${line} ${word}`, width)) {
      if (line !== '') lines.push(line)
      line = word
    } else line = `${line} ${word}`
  }
  return [...lines, line]
}

function chop(word: string, width: number): string[] {
  if (fits(word, width)) return [word]
  const lines: string[] = []
  let line = ''
  for (const character of word) {
    if (line !== '' && !fits(line + character, width)) {
      lines.push(line)
      line = ''
    }
    line += character
  }
  return [...lines, line]
}

/** No character takes more than two columns: most texts need no closer look. */
function fits(text: string, width: number): boolean {
  return text.length * 2 <= width || displayWidth(text) <= width
}
