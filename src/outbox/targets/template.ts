import type { Event, Json } from './target.ts'

/**
 * `{{payload.order.id}}` in strings of a template. A string that is nothing but one of them becomes the value with its
 * type; inside a longer string it becomes text. Templates are JSON values and not JSON text, so no value can add a
 * field or end a string.
 */

const placeholder = /\{\{\s*([^{}]*?)\s*\}\}/g
const roots = ['id', 'deliveryId', 'topic', 'tenant', 'createdAt', 'attempt', 'orderingKey', 'payload'] as const

/** The first placeholder that can never be filled, or null. */
export function templateProblem(template: Json): string | null {
  for (const text of stringsOf(template)) {
    for (const [, path = ''] of text.matchAll(placeholder)) {
      const [root, ...rest] = path.split('.')
      const known = roots.find((name) => name === root)
      if (known === undefined) return `{{${path}}} is not in an event; there are ${roots.join(', ')}`
      if (rest.includes('') || (known !== 'payload' && rest.length > 0)) return `{{${path}}} leads nowhere`
    }
  }
  return null
}

/** The template with the event in it; or which placeholder this event has nothing for. */
export function fill(template: Json, event: Event): { readonly value: Json } | { readonly missing: string } {
  try {
    return { value: filled(template, event) }
  } catch (error) {
    if (error instanceof Missing) return { missing: error.path }
    throw error
  }
}

class Missing extends Error {
  readonly path: string
  constructor(path: string) {
    super(path)
    this.path = path
  }
}

function filled(template: Json, event: Event): Json {
  if (typeof template === 'string') return filledText(template, event)
  if (Array.isArray(template)) return template.map((each) => filled(each, event))
  if (typeof template !== 'object' || template === null) return template
  return Object.fromEntries(Object.entries(template).map(([key, value]) => [key, filled(value, event)]))
}

function filledText(text: string, event: Event): Json {
  const [only] = text.matchAll(placeholder)
  if (only?.[0] === text) return valueAt(only[1] ?? '', event)
  return text.replace(placeholder, (_, path: string) => {
    const value = valueAt(path, event)
    return typeof value === 'string' ? value : JSON.stringify(value)
  })
}

function valueAt(path: string, event: Event): Json {
  const { id, deliveryId, topic, tenant, createdAt, attempt, orderingKey, payload } = event
  let at: Json = { id, deliveryId, topic, tenant, createdAt, attempt, orderingKey, payload }
  for (const key of path.split('.')) {
    // Own keys only: `payload.constructor` is not part of anybody's data.
    const next: Json | undefined =
      typeof at === 'object' && at !== null && Object.hasOwn(at, key)
        ? Array.isArray(at)
          ? at[Number(key)]
          : at[key]
        : undefined
    if (next === undefined) throw new Missing(path)
    at = next
  }
  return at
}

function stringsOf(template: Json): readonly string[] {
  if (typeof template === 'string') return [template]
  if (typeof template !== 'object' || template === null) return []
  return Object.values(template).flatMap(stringsOf)
}
