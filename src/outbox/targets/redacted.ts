import { redact } from '../../redaction/redact.ts'
import type { Json } from './target.ts'

/**
 * A payload as it may be shown to people outside: redacted once more, whoever wrote it, because what has left can't be
 * called back. `fields` is what it holds when it is an object, and empty otherwise.
 */
export function redacted(
  payload: unknown,
  limit: number,
): { readonly value: Json; readonly fields: Readonly<Record<string, Json>> } {
  // True because only `readonly` differs: both are the types of JSON.
  const value = redact(payload, { limit }) as Json
  return { value, fields: typeof value === 'object' && value !== null && !Array.isArray(value) ? value : {} }
}
