import { inspect } from 'node:util'
import { expect } from 'vitest'
import type { PostgresConnection } from '../../src/drivers/connection.ts'
import type { ContractFunction } from '../../src/drivers/contract.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import { TmsError } from '../../src/errors.ts'
import type { Database } from '../servers/postgres.ts'
import { query } from '../servers/postgres.ts'

/**
 * The drivers are tested against functions of the contract with bodies made for the test, so that a test can make them
 * slow, failing or counting. The real ones are the conformance suite's.
 */
export async function createTinySchema(database: Database): Promise<void> {
  await query(
    database.url,
    `create schema tms;
     grant usage on schema tms to public;
     create table tms.tenants (request_id text primary key, id uuid not null default gen_random_uuid(),
       key text not null, name text not null, created_at timestamptz not null default now(), times int not null default 1);
     grant select, insert, update on tms.tenants to public;
     create function tms.tenants_add(args jsonb) returns jsonb language sql as $$
       insert into tms.tenants as t (request_id, key, name) values (args ->> 'request_id', args ->> 'key', args ->> 'name')
       on conflict (request_id) do update set times = t.times + 1
       returning jsonb_build_object('tenant', jsonb_build_object('key', key, 'id', id, 'name', name))
     $$;
     create function tms.tenants_list(args jsonb) returns jsonb language sql stable as $$
       select jsonb_build_object('tenants', coalesce(jsonb_agg(jsonb_build_object('key', key, 'id', id, 'name', name,
         'created_at', to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))), '[]'))
       from tms.tenants
     $$;
     create table tms.signals_sent (id bigint generated always as identity, channel text not null);
     grant select, insert on tms.signals_sent to public;`,
  )
  await define(database, 'signals', signals)
}

export const signals = `return (
  select jsonb_build_object('cursor', coalesce(max(id), 0)::text, 'signals', count(*) filter (
    where id > (args ->> 'after')::bigint and channel = args ->> 'channel'))
  from tms.signals_sent);`

/** Replaces a contract function; the body is PL/pgSQL and gives `args` back as its own. */
export async function define(database: Database, fn: ContractFunction, body: string): Promise<void> {
  await query(
    database.url,
    `create or replace function tms.${fn}(args jsonb) returns jsonb language plpgsql as $body$ begin ${body} end $body$`,
  )
}

/** An answer that `contract_version` may give; its `server` says what the test wants to know. */
export const says = (sql: string): string =>
  `return jsonb_build_object('contract', 1, 'server', (${sql})::pg_catalog.text);`

export async function ask(driver: Driver): Promise<string> {
  const answer = await driver.call('contract_version', {})
  if ('refused' in answer) throw new Error(`refused: ${answer.refused.what}`)
  return answer.server
}

export function connectionTo(url: string, more: Partial<PostgresConnection> = {}): PostgresConnection {
  return { driver: 'postgres', url, connectTimeoutMs: 5_000, callTimeoutMs: 10_000, ...more }
}

/** Opens, uses and closes, whatever happens. */
export async function using<T>(connection: PostgresConnection, work: (driver: Driver) => Promise<T>): Promise<T> {
  const driver = await openPostgres(connection)
  try {
    return await work(driver)
  } finally {
    await driver.close()
  }
}

export async function failureOf(work: Promise<unknown>): Promise<TmsError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  if (!(error instanceof TmsError)) throw new Error(`no TmsError but ${inspect(error)}`)
  expect(error.next).not.toEqual([])
  for (const text of [error.message, error.why]) expect(text).toMatch(/^[^\n]+$/)
  return error
}

/** Everything a log, a report or TMS_DEBUG could show of it, causes included. */
export function everythingOf(error: TmsError): string {
  return inspect(error, { depth: 6, showHidden: true }) + JSON.stringify(error)
}
