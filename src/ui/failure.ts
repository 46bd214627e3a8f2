import { exit, TmsError, type Problem } from '../errors.ts'
import { fileProblem } from '../files.ts'
import { redactText } from '../redaction/redact.ts'
import { redact } from './redact.ts'
import { interrupted } from './signals.ts'

/** Whatever was thrown, as the one kind of error people see. */
export function asTmsError(thrown: unknown, rerun: string): TmsError {
  if (thrown instanceof TmsError) return thrown
  if (thrown instanceof Error) {
    // Ctrl-C in a question: inquirer reads the key itself, no signal arrives.
    if (thrown.name === 'ExitPromptError' || thrown.name === 'AbortPromptError') return interrupted(exit.interrupted)
    const code = 'code' in thrown ? thrown.code : undefined
    if (code === 'ENOSPC' || code === 'EDQUOT')
      return fileProblem('path' in thrown ? String(thrown.path) : 'a file', thrown)
  }
  return new TmsError(
    {
      code: 'BUG',
      // Nobody knows whose words these are: an agent's, too.
      what: `This is a bug in tms: ${redactText(thrown instanceof Error ? thrown.message : String(thrown))}`,
      why: 'An error reached the command line that no part of tms expects.',
      next: [`TMS_DEBUG=1 ${rerun}`],
    },
    { cause: thrown },
  )
}

/** Every string of the error without secrets: messages of libraries quote URLs, headers and parameters. */
export function withoutSecrets(error: TmsError, secrets: readonly string[]): Problem {
  const clean = (text: string) => redact(text, secrets)
  return { code: error.code, what: clean(error.message), why: clean(error.why), next: error.next.map(clean) }
}

/** The stack, for `TMS_DEBUG=1` only. */
export function stackOf(error: TmsError): string {
  const cause = error.cause instanceof Error ? (error.cause.stack ?? '') : ''
  return [error.stack ?? '', cause && `Caused by: ${cause}`].filter(Boolean).join('\n')
}
