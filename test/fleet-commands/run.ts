import { join } from 'node:path'
import { Config } from '@oclif/core'
import { vi } from 'vitest'
import type { TmsCommand } from '../../src/ui/command.ts'
import { root } from '../ui/process.ts'

/** Commands in this process: what they print for people, what they print for programs, and their exit code. */

type CommandClass = { id: string } & (new (argv: string[], config: Config) => TmsCommand)
export type Ended = { readonly code: number; readonly out: string; readonly err: string }

type Envelope = {
  readonly ok: boolean
  readonly data: unknown
  readonly warnings: readonly string[]
  readonly error: { readonly code: string; readonly why: string; readonly next: readonly string[] } | null
}

/** `tms('agents show', 'rates')`, with the arguments behind the command. */
export async function tms(id: string, ...argv: string[]): Promise<Ended> {
  const name = `${id.replaceAll(' ', '/')}.ts`
  // True because every file in src/commands exports one command class.
  const { default: Class } = (await import(join(root, 'src/commands', name))) as { default: CommandClass }
  Class.id = id.replaceAll(' ', ':')
  const config = await Config.load({ root, devPlugins: false, userPlugins: false })
  let out = ''
  let err = ''
  const collect =
    (add: (text: string) => void) =>
    (chunk: unknown, ...rest: unknown[]) => {
      add(String(chunk))
      const done = rest.at(-1)
      // True because the last argument of write, when it is a function, is the callback.
      if (typeof done === 'function') queueMicrotask(done as () => void)
      return true
    }
  const spies = [
    vi.spyOn(process.stdout, 'write').mockImplementation(collect((text) => (out += text))),
    vi.spyOn(process.stderr, 'write').mockImplementation(collect((text) => (err += text))),
  ]
  try {
    return { code: await new Class(argv, config).execute(), out, err }
  } finally {
    for (const spy of spies) spy.mockRestore()
  }
}

/** The same with --json: the exit code and the envelope. */
export async function json(id: string, ...argv: string[]): Promise<Envelope & { code: number; lines: unknown[] }> {
  const { code, out, err } = await tms(id, ...argv, '--json')
  const lines = out
    .trim()
    .split('\n')
    .map((line): unknown => JSON.parse(line))
  if (err !== '') throw new Error(`with --json it wrote to stderr: ${err}`)
  // True enough for a test: what is in it is compared.
  return { code, lines: lines.slice(0, -1), ...(lines.at(-1) as Envelope) }
}

/** A working folder and an environment of their own, put back by what it returns. */
export function surroundings(folder: string, variables: Readonly<Record<string, string>> = {}): () => void {
  const before = { cwd: process.cwd(), env: { ...process.env } }
  process.chdir(folder)
  const kept = Object.entries(before.env).filter(([name]) => !/^(TMS_|DATABASE_|SUPABASE_|FORCE_COLOR)/.test(name))
  process.env = { ...Object.fromEntries(kept), ...variables }
  return () => {
    process.chdir(before.cwd)
    process.env = before.env
  }
}
