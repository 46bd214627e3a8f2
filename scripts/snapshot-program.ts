import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import { NodeFS } from '@electric-sql/pglite/nodefs'
import { readSqlFiles } from '../src/db/files.ts'
import { pushSchema } from '../src/db/push.ts'
import { createDatabase } from '../src/drivers/embedded/create.ts'
import { DurableFs } from '../src/drivers/embedded/durable-fs.ts'
import { createSnapshot, snapshotArchive, snapshotManifest } from '../src/drivers/embedded/snapshot.ts'

/**
 * A database with the schema and nobody in it. Not made through the driver: opening that makes the local user an operator,
 * and whoever builds a release must not be one everywhere.
 */
export async function writeSnapshot(root: string, folder: string): Promise<void> {
  const data = join(mkdtempSync(join(tmpdir(), 'tms-snapshot-')), 'db')
  try {
    await createDatabase(new DurableFs(data))
    const db = await PGlite.create({ fs: new NodeFS(data) })
    await pushSchema(
      {
        transaction: (work) =>
          db.transaction((tx) =>
            work(async (sql, parameters) => {
              if (parameters) return (await tx.query<Record<string, unknown>>(sql, [...parameters])).rows
              return (await tx.exec(sql)).at(-1)?.rows ?? []
            }),
          ),
      },
      await readSqlFiles(join(root, 'sql')),
    )
    await db.exec('vacuum (freeze, analyze)')
    await db.close()
    const { archive, manifest } = createSnapshot(data)
    writeFileSync(join(folder, snapshotArchive), archive)
    writeFileSync(join(folder, snapshotManifest), manifest)
  } finally {
    rmSync(join(data, '..'), { recursive: true, force: true })
  }
}
