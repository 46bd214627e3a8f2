/** Text as it stands in the page. Whatever comes from outside goes through `escape`. */

const marks: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

/** For text and for attributes. Characters that reorder text would let a name rewrite the sentence around it. */
export function escape(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, ' ').replace(/[&<>"']/g, (mark) => marks[mark] ?? '')
}

/** Groups of three: 1,234,567.8 */
export function grouped(number: string): string {
  const [, sign = '', whole = number, fraction = ''] = /^(-?)(\d+)(\.\d+)?$/.exec(number) ?? []
  return `${sign}${whole.replace(/\B(?=(\d{3})+$)/g, ',')}${fraction}`
}

/** A duration as people read it. */
export function duration(ms: string): string {
  const value = Number(ms)
  if (value < 1000) return `${trimmed(value, value < 10 ? 1 : 0)} ms`
  if (value < 120_000) return `${trimmed(value / 1000, value < 10_000 ? 2 : 1)} s`
  if (value < 7_200_000) return `${trimmed(value / 60_000, 1)} min`
  return `${trimmed(value / 3_600_000, 1)} h`
}

/** `2026-10-31 09:30:12 UTC` */
export function moment(instant: string): string {
  return `${instant.slice(0, 10)} ${instant.slice(11, 19)} UTC`
}

export function clock(instant: string): string {
  return instant.slice(11, 16)
}

export function trimmed(value: number, digits: number): string {
  return grouped(String(Number(value.toFixed(digits))))
}

/** One thing, two things. */
export function plural(count: number | string, one: string, many = `${one}s`): string {
  return `${grouped(String(count))} ${Number(count) === 1 ? one : many}`
}
