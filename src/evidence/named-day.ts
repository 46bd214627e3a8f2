import { TmsError } from '../errors.ts'
import { dayAfter, isDay } from './verify-forms.ts'

/** A day as people write it: a date, `today` or `yesterday`, in UTC. For commands that read files: by this machine's clock. */
export function namedDay(text: string, now: Date): string {
  const today = now.toISOString().slice(0, 10)
  if (text === 'today') return today
  if (text === 'yesterday') return dayAfter(today, -1)
  if (isDay(text)) return text
  throw noDay(text)
}

export function noDay(text: string): TmsError {
  return new TmsError({
    code: 'USAGE',
    what: `"${text}" is no day`,
    why: 'a day is written 2026-10-31, today or yesterday; days are those of UTC',
    next: ['tms evidence list', 'tms evidence build --date yesterday'],
  })
}
