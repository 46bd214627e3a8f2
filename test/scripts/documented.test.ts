import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import * as z from 'zod'

const manifest = z
  .object({ commands: z.record(z.string(), z.object({ flags: z.record(z.string(), z.unknown()) })) })
  .parse(JSON.parse(readFileSync('oclif.manifest.json', 'utf8')))
const flagsOf = new Map(Object.entries(manifest.commands).map(([id, { flags }]) => [id.replaceAll(':', ' '), flags]))

/** Each `tms …` with a flag in the pages that people write: `docs/commands.md` is made from the commands themselves. */
const pages = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', ...['docs', 'examples'].flatMap(pagesIn)]
const shown = pages
  .filter((page) => page !== 'docs/commands.md')
  .flatMap((page) =>
    [...readFileSync(page, 'utf8').matchAll(/(?<![\w@/.-])tms ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)*)([^`#|\n]*)/g)].map(
      ([text, words = '', rest = '']) => ({
        page,
        text,
        words: words.split(' '),
        flags: rest.match(/(?<= )--[a-z][a-z-]*/g) ?? [],
      }),
    ),
  )
  .filter(({ flags }) => flags.length > 0)

test('every flag that the pages show belongs to the command they show it with', () => {
  expect(shown.length).toBeGreaterThan(50)
  const wrong = shown.flatMap(({ page, text, words, flags }) => {
    const id = words.map((_, i) => words.slice(0, words.length - i).join(' ')).find((name) => flagsOf.has(name))
    const known = Object.keys(flagsOf.get(id ?? '') ?? {}).map((name) => `--${name}`)
    return flags
      .filter((flag) => flag !== '--help' && !known.includes(flag))
      .map((flag) => `${page}: ${flag} in ${text}`)
  })
  expect(wrong).toEqual([])
})

function pagesIn(folder: string): string[] {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  return names
    .filter((name) => name.endsWith('.md') && !name.includes('node_modules'))
    .map((name) => join(folder, name))
}
