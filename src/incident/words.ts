import { redact } from '../redaction/redact.ts'

/**
 * What people and alarms say, as it may be kept and passed on: without secrets, and without what a database refuses as
 * text. It never throws: a halt must not depend on its reason. Cut last, because half a secret looks like none.
 */
export function words(text: string, most = 2000): string {
  const safe = redact(text, { limit: 64 * 1024 })
  const kept = (typeof safe === 'string' ? safe : JSON.stringify(safe)).replace(/\u0000|\p{Surrogate}/gu, ' ').trim()
  return kept.slice(0, most).replace(/\p{Surrogate}$/u, '')
}
