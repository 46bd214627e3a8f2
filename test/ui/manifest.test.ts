import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { flagVariable } from '../../src/ui/variables.ts'
import { root } from './process.ts'

/** What every command owes its user, read from the committed manifest. */

type Flag = {
  readonly name: string
  readonly type: string
  readonly env?: string
  readonly char?: string
  readonly required?: boolean
  readonly allowNo?: boolean
}
type Entry = {
  readonly id: string
  readonly summary: string
  readonly examples: readonly string[]
  readonly args: Readonly<Record<string, { readonly required?: boolean; readonly multiple?: boolean }>>
  readonly flags: Readonly<Record<string, Flag>>
}

const manifest = JSON.parse(readFileSync(join(root, 'oclif.manifest.json'), 'utf8')) as {
  readonly commands: Readonly<Record<string, Entry>>
}
const commands = Object.values(manifest.commands).map((entry) => [entry.id.replaceAll(':', ' '), entry] as const)

test.each(commands)('%s has a summary and at least two examples', (_name, { summary, examples }) => {
  expect(summary).toMatch(/^\S.{10,110}[^.]$/)
  expect(examples.length).toBeGreaterThanOrEqual(2)
})

test.each(commands.flatMap(([name, entry]) => entry.examples.map((example) => [example, name, entry] as const)))(
  '%s can be copied and run',
  (example, name, { flags, args }) => {
    // What is piped in, and where the output goes, is no part of the command.
    const command = example.replace(/^(cat \S+ \| |[A-Z_]+=\S+ )/, '').replace(/ [<>] \S+$/, '')
    const words = shellWords(command.replace('<%= config.bin %>', 'tms'))
    const known = Object.values(flags)
    expect(words.slice(0, 1 + name.split(' ').length)).toEqual(['tms', ...name.split(' ')])

    const given = new Set<string>()
    let positional = 0
    for (const rest = words.slice(1 + name.split(' ').length); rest.length > 0;) {
      const word = rest.shift() ?? ''
      if (!word.startsWith('-') || word === '-') {
        positional++
        continue
      }
      const flag = known.find(
        ({ name, char, allowNo }) =>
          word === `--${name}` || (char && word === `-${char}`) || (allowNo && word === `--no-${name}`),
      )
      expect(flag, `${word} of: ${example}`).toBeDefined()
      given.add(flag?.name ?? '')
      if (flag?.type === 'option') rest.shift()
    }
    const required = Object.values(args).filter((argument) => argument.required).length
    expect(positional).toBeGreaterThanOrEqual(required)
    if (!Object.values(args).some(({ multiple }) => multiple))
      expect(positional).toBeLessThanOrEqual(Object.keys(args).length)
    for (const { name, required } of known) if (required) expect(given).toContain(name)
  },
)

/** Keys that join what belongs together, and files that hold a key. */
const keysThatAreNoSecrets = new Set([
  'agents enqueue',
  'incident open',
  'evidence export',
  'evidence verify',
  'ledger verify',
  'ledger witness',
])

test.each(commands)(
  '%s has a variable for every flag except consent, and no flag takes a secret',
  (command, { flags }) => {
    for (const [name, { env }] of Object.entries(flags)) {
      expect(env ?? null).toBe(flagVariable(name))
      if (/^(log-|witness-)?key$/.test(name) && keysThatAreNoSecrets.has(command)) continue
      expect(name).not.toMatch(/password|secret|token|key$/)
    }
  },
)

test.each(commands)('%s has the flags that every command has', (_name, { flags }) => {
  expect(Object.keys(flags)).toEqual(
    expect.arrayContaining(['json', 'profile', 'driver', 'config', 'timeout', 'color']),
  )
})

/** Enough of a shell for examples: words, and quotes around those with spaces. */
function shellWords(line: string): string[] {
  return [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(
    ([, double, single, plain]) => double ?? single ?? plain ?? '',
  )
}
