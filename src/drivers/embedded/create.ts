import { PGlite } from '@electric-sql/pglite'
import type { DurableFs } from './durable-fs.ts'

/**
 * A new, empty database: initdb, 2.5 s. Nothing here is durable; whoever asked syncs the folder before it gets its name.
 *
 * The template databases go: nothing here ever creates a database, they are 600 of 970 files (each to be unpacked, and
 * to be synced after a crash), and with nobody to vacuum them they would stop the server at 2^31 transactions.
 */
export async function createDatabase(fs: DurableFs): Promise<void> {
  const db = await PGlite.create({ fs })
  await db.exec('update pg_database set datistemplate = false where datistemplate')
  await db.exec('drop database template0')
  await db.exec('drop database template1')
  await db.close()
}
