import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { readSqlFiles } from '../../src/db/files.ts'
import { push } from '../../src/db/schema.ts'
import { openEmbedded } from '../../src/drivers/embedded/driver.ts'
import { openPostgres } from '../../src/drivers/postgres/driver.ts'
import { build } from '../ui/built.ts'
import { root } from '../ui/process.ts'
import { query, startPostgres, type Database, type Postgres, type PostgresOptions } from './postgres.ts'
import { createApiRoles } from './postgrest.ts'
import { copied } from './template.ts'
import { until } from './process.ts'

export const sqlFolder = join(root, 'sql')

/** A server with the schema in a database; with `apiRoles`, the roles of a Supabase project were there before. */
export async function startSchema({
  apiRoles = false,
  ...options
}: PostgresOptions & { readonly apiRoles?: boolean } = {}): Promise<{ server: Postgres; database: Database }> {
  const ready = async (server: Postgres): Promise<Database> => {
    const database = await server.createDatabase()
    if (apiRoles) await createApiRoles(database)
    const deployer = await openPostgres({
      driver: 'postgres',
      url: database.url,
      connectTimeoutMs: 10_000,
      callTimeoutMs: 20_000,
    })
    await push(deployer, await readSqlFiles(sqlFolder))
    await deployer.close()
    return database
  }
  const make = async (folder: string): Promise<void> => {
    const server = await startPostgres({ own: true })
    try {
      const database = await ready(server)
      await query(server.superuserUrl, `alter database ${database.name} rename to ${name}`)
      server.cluster?.kill('SIGINT')
      await until('it has shut down', () => server.cluster?.running() !== true)
      await promisify(execFile)('cp', ['-a', server.cluster?.data ?? '', folder])
    } finally {
      await server.stop()
    }
  }
  const name = apiRoles ? 'schema_api' : 'schema'
  const server = await startPostgres({ ...options, template: { name, make } })
  // A server that is somebody else's comes from no template.
  return { server, database: server.cluster ? server.database(name) : await ready(server) }
}

/** An embedded database with the schema, in a directory that isn't there yet. Nobody owns it. */
export async function makeEmbedded(directory: string): Promise<void> {
  const make = async (folder: string): Promise<void> => {
    build()
    const driver = await openEmbedded(
      { driver: 'embedded', directory: folder, create: true, callTimeoutMs: 20_000 },
      // What the build made of these sources: making it a second time takes 3.5 s of a processor.
      { localUser: 'operator', snapshotFolder: join(root, 'dist') },
    )
    await push(driver, await readSqlFiles(sqlFolder))
    await driver.close()
  }
  await copied({ name: 'embedded', make }, directory)
}
