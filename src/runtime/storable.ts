import type { Json } from '../redaction/redact.ts'

/** The text as Postgres can hold it: without NUL, and without half of a surrogate pair. */
export function storableText(text: string): string {
  return text.toWellFormed().replaceAll('\u0000', '\ufffd')
}

/** How JSON.stringify writes those two. Behind an odd backslash it is a word that only looks like it. */
const unstorable = /(?<!\\)((?:\\\\)*)\\u(?:0000|d[89a-f][0-9a-f]{2})/g

/** Whether jsonb can hold what this JSON text says. */
export function isStorable(text: string): boolean {
  return text.search(unstorable) === -1
}

export function storableJson(value: Json): Json {
  const text = JSON.stringify(value)
  // True: it is the text of a Json, with other characters in its strings.
  return isStorable(text) ? value : (JSON.parse(text.replace(unstorable, '$1\\ufffd')) as Json)
}
