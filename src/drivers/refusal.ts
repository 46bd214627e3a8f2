import { isErrorCode, TmsError } from '../errors.ts'
import type { Refused } from './driver.ts'

function isRefused(answer: unknown): answer is Refused {
  return typeof answer === 'object' && answer !== null && 'refused' in answer
}

/** The result, or the refusal as the error a command ends with (exit 4, as a rule). */
export function granted<T>(answer: T | Refused): T {
  if (!isRefused(answer)) return answer
  const { code, what, why, next, again_at: againAt } = answer.refused
  // A newer database may refuse for a reason this release has no name for: it is a refusal all the same.
  throw new TmsError({ code: isErrorCode(code) ? code : 'ROLE_DENIED', what, why, next, againAt })
}
