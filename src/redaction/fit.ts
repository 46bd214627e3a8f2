export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }

/**
 * The value, cut so that its JSON text has at most `limit` bytes. Small fields survive beside big ones: the room is given
 * out from the smallest to the biggest, and whoever needs less than its share leaves the rest to the others.
 */
export function fit(value: Json, limit: number): Json {
  return bytes(value) <= limit ? value : cut(value, limit)
}

function bytes(value: Json): number {
  return Buffer.byteLength(JSON.stringify(value))
}

/** Below this a share holds no more than the note that something was cut. */
const least = 48

function cut(value: Json, room: number): Json {
  if (typeof value === 'string') return cutText(value, room)
  if (isList(value)) return cutList(value, room)
  if (typeof value === 'object' && value !== null) return cutObject(value, room)
  return value
}

export function cutText(text: string, room: number): string {
  if (bytes(text) <= room) return text
  const { 0: tail = '', 1: before = '0' } = /\[cut: (\d{1,15}) characters\]$/.exec(text.slice(-40)) ?? []
  const note = (kept: number) => `[cut: ${text.length - tail.length - kept + Number(before)} characters]`
  let budget = room - 2 - note(0).length
  let kept = 0
  const most = text.length - tail.length
  for (const character of text) {
    budget -= bytes(character) - 2
    if (budget < 0 || kept >= most) break
    kept += character.length
  }
  // Half a marker would say nothing, and could be taken for text.
  const open = text.lastIndexOf('[redacted:', kept - 1)
  const close = open === -1 ? -1 : text.indexOf(']', open)
  if (open !== -1 && open + 30 > kept && close >= kept) kept = open
  return text.slice(0, kept) + note(kept)
}

function cutList(list: readonly Json[], room: number): Json {
  const last = list.at(-1)
  const [tail, before = '0'] = (typeof last === 'string' && /^\[cut: (\d{1,15}) items\]$/.exec(last)) || []
  const most = list.length - (tail === undefined ? 0 : 1)
  const note = (kept: number) => `[cut: ${most - kept + Number(before)} items]`
  let budget = room - 2 - note(0).length - 3
  const kept: Json[] = []
  for (const item of list.slice(0, most)) {
    const size = bytes(item) + 1
    if (size > budget) {
      // The first of a list is worth showing in part: often it is the only one.
      if (budget > least && kept.length === 0) kept.push(cut(item, budget - 1))
      break
    }
    kept.push(item)
    budget -= size
  }
  return [...kept, note(kept.length)]
}

function cutObject(object: { readonly [key: string]: Json }, room: number): Json {
  const { '[cut]': tail, ...fields } = object
  const before = Number(/^(\d{1,15}) fields$/.exec(typeof tail === 'string' ? tail : '')?.[1] ?? 0)
  const entries = Object.entries(fields).map(([key, value], place) => {
    return { key, value, place, frame: bytes(key) + 2, size: bytes(value) }
  })
  let budget = room - 2 - `"[cut]":"${entries.length + before} fields",`.length
  const kept: typeof entries = []
  const bySize = [...entries].sort((a, b) => a.frame + a.size - (b.frame + b.size))
  for (const [index, entry] of bySize.entries()) {
    const share = Math.floor(budget / (bySize.length - index))
    // When shares are tiny, the small ones are kept whole and the big ones go.
    const most = Math.max(share, Math.min(budget, least * 2)) - entry.frame
    if (entry.size <= most) kept.push(entry)
    else if (most >= least) kept.push(shorter(entry, cut(entry.value, most)))
    else continue
    const last = kept.at(-1)
    budget -= last ? last.frame + last.size : 0
  }
  kept.sort((a, b) => a.place - b.place)
  const left = entries.length - kept.length + before
  return Object.fromEntries([
    ...kept.map(({ key, value }): [string, Json] => [key, value]),
    ...(left > 0 ? [['[cut]', `${left} fields`] as const] : []),
  ])
}

function shorter<E extends { value: Json; size: number }>(entry: E, value: Json): E {
  return { ...entry, value, size: bytes(value) }
}

function isList(value: Json): value is readonly Json[] {
  return Array.isArray(value)
}
