import { redact } from './redact.ts'

/** One word as a POSIX shell must be given it. */
export function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}

/**
 * The command line to type again, with `extra` added. Without secrets: it is printed and lands in CI logs.
 * What was asked of the first run only (its `--confirm`) is left out.
 */
export function commandLine(id: string, argv: readonly string[], extra: readonly string[] = []): string {
  const kept: string[] = []
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? ''
    if (word === '--confirm') i++
    else if (!word.startsWith('--confirm=')) kept.push(word)
  }
  const end = kept.indexOf('--')
  kept.splice(end === -1 ? kept.length : end, 0, ...extra)
  return redact(['tms', ...id.split(/[: ]/), ...kept].map(shellWord).join(' '))
}

/** Whether `--json` was asked for, when the arguments can't be (or haven't been) parsed. */
export function wantsJson(argv: readonly string[], environment: NodeJS.ProcessEnv): boolean {
  const end = argv.indexOf('--')
  const flags = end === -1 ? argv : argv.slice(0, end)
  return flags.includes('--json') || truthy(environment.TMS_JSON) === true
}

/** The long flags that are given, whatever they are: `--why=x` is `why`. */
export function typedFlags(argv: readonly string[]): ReadonlySet<string> {
  const end = argv.indexOf('--')
  const words = end === -1 ? argv : argv.slice(0, end)
  return new Set(words.filter((word) => word.startsWith('--')).map((word) => word.slice(2).replace(/=.*$/s, '')))
}

/** What a boolean variable says; null when it says neither. */
export function truthy(value: string | undefined): boolean | null {
  if (value === undefined || /^(0|false|no|off)?$/i.test(value)) return false
  return /^(1|true|yes|on)$/i.test(value) ? true : null
}
