import { anyHelp, TmsError } from './errors.ts'

const units = { s: 1, m: 60, h: 3600, d: 86_400 } as const

/**
 * `90s`, `15m`, `24h`, `7d`, or plain seconds. With a limit: beyond it databases, dates and timers have numbers of their
 * own that overflow, and would name neither.
 */
export function parseSeconds(text: string, limit?: { readonly flag: string; readonly most: string }): number {
  const [, number, unit = 's'] = /^(\d{1,9})([smhd])?$/.exec(text) ?? []
  if (number === undefined || (unit !== 's' && unit !== 'm' && unit !== 'h' && unit !== 'd')) {
    throw new TmsError({
      code: 'USAGE',
      what: `"${text}" is no duration`,
      why: 'it takes a number and a unit: 90s, 15m, 24h or 7d',
      next: ['give it as 24h'],
    })
  }
  const seconds = Number(number) * units[unit]
  if (limit && seconds > parseSeconds(limit.most)) {
    throw new TmsError({
      code: 'USAGE',
      what: `${limit.flag} takes at most ${limit.most}`,
      why: `"${text}" is longer`,
      next: [anyHelp],
    })
  }
  return seconds
}
