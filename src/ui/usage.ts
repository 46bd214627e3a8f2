import { TmsError } from '../errors.ts'
import { suggest } from '../suggest.ts'

/**
 * What oclif's parser throws, as a usage error. Told apart by shape: its messages end in help for a person in front
 * of a terminal, and its objects carry the whole configuration with home paths.
 */
export function usageError(thrown: unknown, command: string, flags: readonly string[]): TmsError {
  const next = [`tms ${command} --help`]
  const usage = (what: string, why: string) => new TmsError({ code: 'USAGE', what, why, next })
  if (thrown instanceof TmsError) return thrown
  if (!(thrown instanceof Error)) return usage('The command line is wrong.', String(thrown))

  if ('flags' in thrown && isTexts(thrown.flags)) {
    const first = thrown.flags[0] ?? ''
    const meant = suggest(first.replace(/^-+/, '').replace(/=.*$/s, ''), flags)
    return usage(
      `Unknown flag: ${thrown.flags.map(withoutValue).join(', ')}`,
      `tms ${command} has no such flag.${meant ? ` Did you mean --${meant}?` : ''}`,
    )
  }
  if ('args' in thrown && isTexts(thrown.args)) {
    return usage(`Unexpected argument: ${thrown.args.join(', ')}`, `tms ${command} takes fewer arguments.`)
  }
  if ('args' in thrown && Array.isArray(thrown.args)) {
    const missing = thrown.args.filter(isDescribed)
    return usage(
      `Missing argument: ${missing.map((argument) => argument.name).join(', ')}`,
      missing.map((argument) => `${argument.name}: ${argument.description ?? 'required'}`).join('\n'),
    )
  }
  return usage(tidy(thrown.message), `tms ${command} can't run with these arguments.`)
}

/** An unknown flag's value may be a secret that was meant for another command. */
function withoutValue(flag: string): string {
  return flag.replace(/=.*$/s, '')
}

function tidy(message: string): string {
  const text = message
    .replace(/See more help with --help/g, '')
    .replace(/^The following errors? occurred:/, '')
    .replace(/\u001b\[\d+m/g, '')
    .replace(/Missing required flag (\S+)/g, 'Missing flag: --$1')
    .replace(/^Parsing (--\S+)/, 'Wrong value for $1:')
    .replace(/\s+/g, ' ')
    .trim()
  return /[.!?]$/.test(text) ? text : `${text}.`
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
}

function isDescribed(value: unknown): value is { name: string; description?: string } {
  return typeof value === 'object' && value !== null && 'name' in value
}
