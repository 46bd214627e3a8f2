import { ZodError } from 'zod'
import { errorClasses, type ErrorClass } from '../drivers/contract/fleet.ts'
import { TmsError } from '../errors.ts'
import { redactError, redactText } from '../redaction/redact.ts'
import { storableText } from './storable.ts'

export type Failure = {
  readonly class: ErrorClass
  readonly error: string
  readonly retry: boolean
  readonly unfit?: boolean
}

/** What went wrong, without secrets and as a table can hold it: the message goes to tables, spans and Slack. */
export function failureOf(thrown: unknown): Failure {
  const { name, message, code } = redactError(thrown)
  const kind = classOf(thrown)
  return {
    class: kind,
    error: storableText(
      `${name === 'Error' || name === 'TaskFailure' ? '' : `${name}: `}${message}${code === undefined ? '' : ` (${code})`}`,
    ),
    retry: taskFailure(thrown)?.retry ?? (kind !== 'validation' && kind !== 'policy'),
  }
}

/** Which paths of a value didn't fit; never the value. The keys of a record are values too. */
export function mismatch(what: 'input' | 'output', error: ZodError): Failure {
  const places = error.issues.slice(0, 5).map(({ path, code }) => `${path.join('.') || 'the whole'}: ${code}`)
  return {
    class: 'validation',
    error: storableText(redactText(`its ${what} doesn't fit: ${places.join('; ')}`)),
    retry: false,
  }
}

/** By its shape: an agent may have its own copy of this package, whose class is another one. */
function taskFailure(thrown: unknown): { readonly class: ErrorClass; readonly retry: boolean } | null {
  if (!(thrown instanceof Error) || thrown.name !== 'TaskFailure' || !('class' in thrown) || !('retry' in thrown))
    return null
  const { retry } = thrown
  const kind = errorClasses.find((known) => known === thrown.class)
  return kind === undefined || typeof retry !== 'boolean' ? null : { class: kind, retry }
}

function classOf(thrown: unknown): ErrorClass {
  const said = taskFailure(thrown)
  if (said !== null) return said.class
  if (thrown instanceof ZodError) return 'validation'
  if (thrown instanceof TmsError) return thrown.code === 'BUDGET_EXCEEDED' ? 'quota_exceeded' : 'external_api'
  if (!(thrown instanceof Error)) return 'bug'
  if (thrown.name === 'TimeoutError') return 'timeout'
  // What fetch and sockets throw: another try may find the other side again.
  const code =
    'code' in thrown ? thrown.code : thrown.cause instanceof Error && 'code' in thrown.cause ? thrown.cause.code : ''
  if (thrown instanceof TypeError && thrown.message === 'fetch failed') return 'external_api'
  if (typeof code === 'string' && /^(E[A-Z]+|UND_ERR_\w+)$/.test(code) && !code.startsWith('ERR_'))
    return 'external_api'
  return 'bug'
}
