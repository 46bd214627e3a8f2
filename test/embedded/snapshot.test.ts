import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openEmbedded } from '../../src/drivers/embedded/driver.ts'
import { createSnapshot, snapshotArchive, snapshotManifest } from '../../src/drivers/embedded/snapshot.ts'
import { TmsError } from '../../src/errors.ts'
import { bundle, connectionTo, type Bundle } from './bundle.ts'

const full = process.env.TMS_TEST_FULL === '1'

let built: Bundle
/** A folder with a whole snapshot, as the build makes it. */
let whole: string
beforeAll(async () => {
  built = await bundle()
  const directory = await built.database()
  const driver = await openEmbedded(connectionTo(directory), built.internals)
  await driver.call('tenants_add', { request_id: 'from the snapshot', key: 'k', name: 'n' })
  await driver.close()
  whole = built.folder()
  const { archive, manifest } = createSnapshot(join(directory, 'db'))
  expect(createSnapshot(join(directory, 'db')).archive.equals(archive)).toBe(true)
  writeFileSync(join(whole, snapshotArchive), archive)
  writeFileSync(join(whole, snapshotManifest), manifest)
})
afterAll(() => built.remove())

function copy(): string {
  const folder = built.folder()
  cpSync(whole, folder, { recursive: true })
  return folder
}

async function create(directory: string, snapshotFolder: string): Promise<string[]> {
  const driver = await openEmbedded(connectionTo(directory, { create: true }), { ...built.internals, snapshotFolder })
  try {
    const answer = await driver.call('tenants_list', {})
    return 'tenants' in answer ? answer.tenants.map(({ key }) => key) : []
  } finally {
    await driver.close()
  }
}

test('a first start unpacks the snapshot, closed to others, and it is a database like any other', async () => {
  const directory = join(built.folder(), '.tms')
  expect(await create(directory, whole)).toEqual(['from the snapshot'])
  expect(statSync(join(directory, 'db')).mode & 0o777).toBe(0o700)
  expect(await create(directory, built.folder())).toEqual(['from the snapshot'])
})

test('a snapshot is a plain tar file', () => {
  const names = execFileSync('tar', ['-tzf', join(whole, snapshotArchive)], { encoding: 'utf8' }).split('\n')
  expect(names).toContain('PG_VERSION')
  expect(names).toContain('base/')
})

const damages: Record<string, (folder: string) => void> = {
  'half of it': (folder) =>
    truncateSync(join(folder, snapshotArchive), statSync(join(folder, snapshotArchive)).size >> 1),
  'one changed byte': (folder) => {
    const bytes = readFileSync(join(folder, snapshotArchive))
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1
    writeFileSync(join(folder, snapshotArchive), bytes)
  },
  'an empty file': (folder) => truncateSync(join(folder, snapshotArchive)),
  'no archive': (folder) => rmSync(join(folder, snapshotArchive)),
  'no manifest': (folder) => rmSync(join(folder, snapshotManifest)),
  'a broken manifest': (folder) => writeFileSync(join(folder, snapshotManifest), '{"sha256":'),
  'a file that leads outside': (folder) => {
    const { archive, manifest } = snapshotOf('../../outside')
    writeFileSync(join(folder, snapshotArchive), archive)
    writeFileSync(join(folder, snapshotManifest), manifest)
  },
}

/** A snapshot whose only file has such a path, with a manifest and a checksum that fit. */
function snapshotOf(path: string): { archive: Buffer; manifest: string } {
  const source = built.folder()
  writeFileSync(join(source, 'x'), 'hello')
  const tar = gunzipSync(createSnapshot(source).archive)
  tar.write(path, 0)
  tar.fill(' ', 148, 156)
  const sum = tar.subarray(0, 512).reduce((total, byte) => total + byte, 0)
  tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  const archive = gzipSync(tar)
  const sha256 = createHash('sha256').update(archive).digest('hex')
  return { archive, manifest: JSON.stringify({ sha256, bytes: archive.length }) }
}

for (const [what, damage] of Object.entries(damages)) {
  test(`a snapshot with ${what} creates nothing and says so`, async () => {
    const folder = copy()
    damage(folder)
    const home = built.folder()
    const directory = join(home, '.tms')
    const error = await create(directory, folder).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(TmsError)
    expect(error).toMatchObject({ code: 'SNAPSHOT_BROKEN', exit: 3 })
    expect(readdirSync(directory)).toEqual(['owner.1.json'])
    expect(readdirSync(home)).toEqual(['.tms'])
    // And the next one, with a whole snapshot, finds nothing in its way.
    if (full || what === 'half of it') expect(await create(directory, whole)).toEqual(['from the snapshot'])
  })
}

test('what a killed first start left is removed by the next', async () => {
  const directory = join(built.folder(), '.tms')
  const left = join(directory, 'db-0123456789abcdef.tmp')
  mkdirSync(left, { recursive: true })
  writeFileSync(join(left, 'PG_VERSION'), '18\n')
  expect(await create(directory, whole)).toEqual(['from the snapshot'])
  expect(readdirSync(directory).sort()).toEqual(['db', 'owner.1.json'])
})

test('two first starts at once make one database', async () => {
  const directory = join(built.folder(), '.tms')
  const both = await Promise.all([create(directory, whole), create(directory, whole)])
  expect(both).toEqual([['from the snapshot'], ['from the snapshot']])
  expect(readdirSync(directory).filter((name) => !name.startsWith('owner.'))).toEqual(['db'])
})
