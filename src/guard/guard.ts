import type { Contract } from '../drivers/contract.ts'
import type { Driver } from '../drivers/driver.ts'
import { granted } from '../drivers/refusal.ts'
import { TmsError } from '../errors.ts'

export type GuardedTables = Contract['guard_check']['result']
export type GuardedTable = GuardedTables['tables'][number]

export async function guardedTables(driver: Driver): Promise<GuardedTables> {
  return granted(await driver.call('guard_check', {}))
}

export type Guarded = {
  readonly target: string
  readonly table: string
  /** Tables that carry the guard now: the table, its partitions and what inherits from it. */
  readonly tables: number
}

/**
 * Puts the guard on a table, its partitions and what inherits from it. It is the table's owner who does that, with a login
 * that speaks SQL; a connection that can't is told what to paste.
 */
export async function guardTable(driver: Driver, table: string): Promise<Guarded> {
  checkName(table)
  const { administration, target } = driver
  if (!administration) {
    throw new TmsError({
      code: 'NO_SQL',
      what: `${target.name} takes no SQL from here, and guarding a table is SQL.`,
      why: 'Only the owner of a table may guard it. Run the statement below as its owner, in an SQL console.',
      next: [`select tms.guard_table('${table.replaceAll("'", "''")}'::regclass);`],
    })
  }
  return administration.transaction(async (run) => {
    // Found first: the cast's own error would be taken for a schema of tms that is too old.
    const [found] = await run('select to_regclass($1)::text as name', [table])
    if (typeof found?.['name'] !== 'string') throw noTable(table, target.name)
    const [answer] = await run('select tms.guard_table($1::regclass) as tables', [table])
    return { target: target.name, table: found['name'], tables: Number(answer?.['tables'] ?? 0) }
  })
}

const part = String.raw`([A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*|"([^"\0]|"")+")`
const tableName = new RegExp(`^(${part}\\.)?${part}$`)

/** Said here, because what the database says about a malformed name quotes nothing of it. */
function checkName(table: string): void {
  if (tableName.test(table)) return
  throw new TmsError({
    code: 'INPUT_INVALID',
    what: `"${table.slice(0, 120)}" is no name of a table.`,
    why: 'It is written as in SQL: orders, public.orders, or public."Orders" when it has capitals.',
    next: ['tms guard add public.orders'],
  })
}

function noTable(table: string, target: string): TmsError {
  const capitals = /[A-Z]/.test(table) && !table.includes('"')
  return new TmsError({
    code: 'NOT_FOUND',
    what: `${target} has no table ${table}.`,
    why: capitals
      ? 'Without double quotes a name is taken in small letters.'
      : 'It is looked for as SQL does; outside of the search path it needs its schema.',
    next: [
      capitals ? `tms guard add '${quoted(table)}'` : `tms guard add public.${table.split('.').at(-1) ?? table}`,
      'tms guard list',
    ],
  })
}

function quoted(table: string): string {
  return table
    .split('.')
    .map((name) => `"${name}"`)
    .join('.')
}
