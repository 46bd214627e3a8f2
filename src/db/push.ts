import type { Administration, RunSql } from '../drivers/driver.ts'
import { TmsError } from '../errors.ts'
import { functionBodies, type SqlFile, type SqlFiles } from './files.ts'

export type PushReport = { readonly migrations: readonly string[]; readonly functions: readonly string[] }

export type AppliedFile = { readonly kind: 'migration' | 'function'; readonly name: string; readonly sha256: string }

/**
 * Brings the schema to what the files say, in one transaction: all of it or nothing. Ten at once apply each file once,
 * because the first holds the lock and the others then find nothing to do.
 */
export async function pushSchema(administration: Administration, files: SqlFiles): Promise<PushReport> {
  return administration.transaction(async (run) => {
    await lock(run)
    const applied = await readApplied(run)
    const plan = planPush(files, applied, await readBodies(run, applied.length > 0))
    if (plan.migrations.length === 0 && plan.functions.length === 0) return { migrations: [], functions: [] }
    if (applied.length > 0 && plan.migrations.length > 0) await refuseBlindMigration(run)

    await run(files.prelude)
    for (const file of [...plan.migrations, ...plan.functions]) {
      // A file may switch to tms_identity; the next one starts as tms_owner again.
      await run('set local role tms_owner')
      await run(file.text)
      await run('set local role tms_owner')
      await run(
        `insert into tms.schema_files (kind, name, sha256) values ($1, $2, $3)
         on conflict (kind, name) do update set sha256 = excluded.sha256, applied_at = now()`,
        [file.kind, file.name, file.sha256],
      )
    }
    await run(files.postlude)
    await run(`notify pgrst, 'reload schema'`)
    return { migrations: plan.migrations.map((file) => file.name), functions: plan.functions.map((file) => file.name) }
  })
}

/**
 * What is still to be applied. A migration that changed after it was applied is refused by name, and so is a database
 * that holds files of a later release: its functions would be put back. A function whose body was changed by hand counts
 * as pending.
 */
export function planPush(
  files: SqlFiles,
  applied: readonly AppliedFile[],
  bodies: ReadonlyMap<string, string> = new Map(),
): { migrations: readonly SqlFile[]; functions: readonly SqlFile[] } {
  const sums = new Map(applied.map((file) => [`${file.kind} ${file.name}`, file.sha256]))
  const ours = new Set([...files.migrations, ...files.functions].map((file) => `${file.kind} ${file.name}`))
  const unknown = applied.filter((file) => !ours.has(`${file.kind} ${file.name}`))
  if (unknown.length > 0) {
    throw new TmsError({
      code: 'SCHEMA_NEWER',
      what: 'this database was pushed by a later release of tms',
      why: `it holds ${unknown.map((file) => file.name).join(', ')}, which this release does not have; nothing was applied`,
      next: ['npm install -g @transbot/tms', 'tms db status'],
    })
  }
  for (const file of files.migrations) {
    const sum = sums.get(`migration ${file.name}`)
    if (sum !== undefined && sum !== file.sha256) {
      throw new TmsError({
        code: 'MIGRATION_CHANGED',
        what: `migration ${file.name} was changed after it was applied`,
        why: `this database ran the text with sha256 ${sum.slice(0, 12)}…, the file has ${file.sha256.slice(0, 12)}…; nothing was applied`,
        next: [`git checkout -- sql/migrations/${file.name}`, 'put the change into a new, higher-numbered migration'],
      })
    }
  }
  return {
    migrations: files.migrations.filter((file) => !sums.has(`migration ${file.name}`)),
    functions: files.functions.filter(
      (file) =>
        sums.get(`function ${file.name}`) !== file.sha256 ||
        [...functionBodies(file.text)].some(([name, sum]) => bodies.size > 0 && bodies.get(name) !== sum),
    ),
  }
}

/**
 * One push at a time. Where the schema exists its own table is locked, which only its owners can do: any login could hold
 * an advisory lock and block every push. The first push has no table yet.
 */
async function lock(run: RunSql): Promise<void> {
  const exists = async () =>
    (await run(`select to_regclass('tms.schema_files') is not null as there`))[0]?.['there'] === true
  if (!(await exists())) await run(`select pg_advisory_xact_lock(hashtext('tms db push'))`)
  if (!(await exists())) return
  await run('set local role tms_owner')
  await run('lock table tms.schema_files in exclusive mode')
  await run('reset role')
}

/** sha256 of each function's body as the database has it. */
async function readBodies(run: RunSql, there: boolean): Promise<ReadonlyMap<string, string>> {
  if (!there) return new Map()
  const rows = await run(
    `select proname::text as name, encode(sha256(convert_to(prosrc, 'UTF8')), 'hex') as sum
       from pg_proc where pronamespace = 'tms'::regnamespace`,
  )
  return new Map(rows.map((row) => [String(row['name']), String(row['sum'])]))
}

async function readApplied(run: RunSql): Promise<AppliedFile[]> {
  const [there] = await run(
    `select to_regnamespace('tms') is not null as schema, to_regclass('tms.schema_files') is not null as files`,
  )
  if (there?.['schema'] !== true) return []
  if (there['files'] !== true) {
    throw new TmsError({
      code: 'CONFLICT',
      what: 'this database has a schema "tms" that tms did not make',
      why: 'there is no table tms.schema_files in it, so what it holds is unknown; nothing was changed',
      next: ['use another database', 'alter schema tms rename to tms_old'],
    })
  }
  await run('set local role tms_owner')
  const rows = await run('select kind, name, sha256 from tms.schema_files')
  await run('reset role')
  return rows.map((row) => ({
    kind: row['kind'] === 'migration' ? 'migration' : 'function',
    name: String(row['name']),
    sha256: String(row['sha256']),
  }))
}

/** Under forced row security a migration that runs as nobody sees no rows and says nothing about it. */
async function refuseBlindMigration(run: RunSql): Promise<void> {
  await run('set local role tms_owner')
  const [row] = await run('select tms._sees_all() as sees, session_user::text as login')
  await run('reset role')
  if (row?.['sees'] === true) return
  throw new TmsError({
    code: 'ROLE_DENIED',
    what: `login "${String(row?.['login'])}" may not migrate this database`,
    why: 'it is not mapped to a super_admin, so row security would hide the rows a migration has to change',
    next: [`tms users grant <who> --role super_admin --login ${String(row?.['login'])} (as a super_admin)`],
  })
}
