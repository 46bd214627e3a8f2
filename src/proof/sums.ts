import { ProofError } from './bytes.ts'

/** SHA256SUMS, as `sha256sum` writes and reads it. */
export type Sum = { readonly name: string; readonly sha256: string }

/** Plain names only: no folders, no dot files, nothing that `sha256sum` would escape or a shell could misread. */
const plainName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$/

/** Sorted by bytes, whatever order they come in. */
export function formatSums(sums: Iterable<Sum>): string {
  const text = [...sums]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, sha256 }) => `${sha256}  ${name}\n`)
    .join('')
  parseSums(text)
  return text
}

/** Refuses every other spelling: order, repeated names, upper case, other blanks, a line without its end. */
export function parseSums(text: string): readonly Sum[] {
  if (!text.endsWith('\n')) throw new ProofError('its last line has no end')
  const sums = text
    .slice(0, -1)
    .split('\n')
    .map((line, number) => {
      const [, sha256 = '', name = ''] = /^([0-9a-f]{64}) {2}(.+)$/.exec(line) ?? []
      if (!plainName.test(name)) throw new ProofError(`line ${number + 1} is no digest, two blanks and a plain name`)
      return { name, sha256 }
    })
  for (const [index, { name }] of sums.entries()) {
    const before = sums[index - 1]?.name
    if (before !== undefined && before >= name) {
      throw new ProofError(before === name ? `${name} is there twice` : `${name} stands after ${before}: not in order`)
    }
  }
  return sums
}
