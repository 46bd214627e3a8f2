import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Hidden } from './planted.ts'

/** Texts by where they were found. */
export type Place = { readonly where: string; readonly text: string }

type Sql = (text: string) => Promise<readonly Record<string, unknown>[]>

/**
 * What belongs to the tenant and is stored as it came: what goes into tasks and what they do, and the names that the
 * tenant's own things have. Everything else is what tms says about it.
 */
const tenantsOwn: readonly RegExp[] = [
  /^(agent_tasks|agent_tasks_history_\w+)\.(payload|output|idempotency_key)$/,
  /^task_steps\.(name|result)$/,
  /^task_effects\.effects$/,
  /^dead_letter_queue\.payload$/,
  /^outbox_events\.(payload|ordering_key|idempotency_key)$/,
  /^outbox_deliveries\.ordering_key$/,
  /^outbox_keys\.key$/,
]

/** Every column of every table, whatever its type. Events that tms itself publishes count, payload and all. */
export async function placesInTables(sql: Sql): Promise<Place[]> {
  const tables = await sql(
    `select c.relname::text as name from pg_class c where c.relnamespace = 'tms'::regnamespace and c.relkind = 'r' order by 1`,
  )
  const places: Place[] = []
  for (const { name } of tables) {
    for (const { row } of await sql(`select to_jsonb(x) as row from tms."${String(name)}" x`)) {
      // True: to_jsonb of a row is an object.
      const columns = row as Readonly<Record<string, unknown>>
      const { topic } = columns
      const own = typeof topic === 'string' && topic.startsWith('agent.')
      for (const [column, value] of Object.entries(columns)) {
        const where = `${String(name)}.${column}`
        if (!own && tenantsOwn.some((pattern) => pattern.test(where))) continue
        places.push(...texts(value).map((text) => ({ where: where.replace(/_(\d{6}|default)\./, '.'), text })))
      }
    }
  }
  return places
}

/** Strings and names in a value, as they are and not as JSON escapes them. */
export function texts(value: unknown): string[] {
  if (typeof value === 'string') return [value]
  if (typeof value !== 'object' || value === null)
    return ['number', 'boolean', 'bigint'].includes(typeof value) ? [String(value)] : []
  if (Array.isArray(value)) return value.flatMap(texts)
  return Object.entries(value).flatMap(([key, item]) => [key, ...texts(item)])
}

/** Every file below a folder, byte by byte. */
export async function placesInFiles(folder: string): Promise<Place[]> {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true })
  return Promise.all(
    entries
      .filter((entry) => entry.isFile())
      .map(async ({ parentPath, name }) => ({
        where: `file ${name}`,
        text: await readFile(join(parentPath, name), 'latin1'),
      })),
  )
}

export type Found = { readonly where: string; readonly kind: string; readonly secret: string; readonly text: string }

/** Which of the secrets stand where. */
export function find(all: readonly Hidden[], places: readonly Place[]): Found[] {
  const secrets = new Map(all.map((one) => [one.secret, one.kind]))
  const distinct = new Map(places.map((place) => [`${place.where} ${place.text}`, place]))
  return [...distinct.values()].flatMap(({ where, text }) =>
    [...secrets].flatMap(([secret, kind]) =>
      text.includes(secret) ? [{ where, kind, secret, text: text.slice(0, 300) }] : [],
    ),
  )
}
