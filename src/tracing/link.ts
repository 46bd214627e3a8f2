import { TmsError } from '../errors.ts'

const place = '{traceId}'

/**
 * The address where people look at a trace. Null when there is no template or it isn't valid: a message at night goes
 * out without its link rather than not at all. `checkLinkTemplate` is what says so, in time.
 */
export function traceLink(template: string | null, traceId: string): string | null {
  if (template === null || problemOf(template) !== null) return null
  return filled(template, traceId)?.href ?? null
}

export function checkLinkTemplate(template: string): void {
  const why = problemOf(template)
  if (why === null) return
  throw new TmsError({
    code: 'CONFIG_INVALID',
    what: "the template of trace links can't be used",
    why,
    next: [`use an address like https://traces.example.com/trace/${place}`],
  })
}

function problemOf(template: string): string | null {
  if (!template.includes(place)) return `it does not contain ${place}`
  const [one, other] = [filled(template, 'a'.repeat(32)), filled(template, 'b'.repeat(32))]
  if (one === null || other === null) return 'it is no address'
  if (one.protocol !== 'http:' && one.protocol !== 'https:') return 'it is neither http nor https'
  if (one.username !== '' || one.password !== '') return 'it has a user or a password, and links are passed around'
  // A trace id may come from outside; it must not choose where people go.
  if (one.origin !== other.origin) return `${place} is part of the host`
  return null
}

function filled(template: string, traceId: string): URL | null {
  // A function, because `$&` and the like mean something in a replacement text.
  const text = template.replaceAll(place, () => encodeURIComponent(traceId))
  return URL.canParse(text) ? new URL(text) : null
}
