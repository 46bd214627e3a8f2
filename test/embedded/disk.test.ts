import { execFileSync } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { chmodSync, cpSync, readdirSync, rmSync, statSync, statfsSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { openEmbedded } from '../../src/drivers/embedded/driver.ts'
import { lookAtOwner } from '../../src/drivers/embedded/lock.ts'
import { TmsError } from '../../src/errors.ts'
import { bundle, connectionTo, type Bundle } from './bundle.ts'

let built: Bundle
const mounted: string[] = []
beforeAll(async () => {
  built = await bundle()
  await built.database()
})
afterEach(() => {
  for (const place of mounted.splice(0)) execFileSync('umount', ['-l', place])
})
afterAll(() => built.remove())

/** A small disk of its own. */
function mount(place: string, megabytes: number): string {
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', place], { stdio: 'pipe' })
  mounted.push(place)
  return place
}

const whyNoMounts = ((): string | undefined => {
  if (process.getuid?.() !== 0) return 'only root can mount a small disk'
  try {
    execFileSync('unshare', ['--mount', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { stdio: 'pipe' })
    return undefined
  } catch {
    return 'this system allows no mounts'
  }
})()
if (whyNoMounts !== undefined) process.stdout.write(`disk.test.ts: skipped, ${whyNoMounts}\n`)

const add = (bytes: number) => ({ request_id: randomUUID(), key: 'k', name: randomBytes(bytes / 2).toString('hex') })

async function failure(work: Promise<unknown>): Promise<TmsError> {
  const error = await work.catch((thrown: unknown) => thrown)
  if (!(error instanceof TmsError)) throw new Error(`no TmsError but ${String(error)}`)
  return error
}

test.skipIf(whyNoMounts !== undefined)(
  'a disk that fills up is said to be full, and calls work again when it is not',
  async () => {
    const directory = join(mount(built.folder(), 120), '.tms')
    cpSync(join(await built.database(), 'db'), join(directory, 'db'), { recursive: true })
    const driver = await openEmbedded(connectionTo(directory), built.internals)
    try {
      await driver.call('tenants_add', add(100))
      const { bavail, bsize } = statfsSync(directory)
      writeFileSync(join(directory, '..', 'filler'), Buffer.alloc(bavail * bsize - 300_000))
      const errors: TmsError[] = []
      for (let i = 0; i < 60 && errors.length < 3; i++) {
        await driver.call('tenants_add', add(1_000_000)).catch((error: unknown) => errors.push(error as TmsError))
      }
      expect(errors.map((error) => error.code)).toEqual(['DISK_FULL', 'DISK_FULL', 'DISK_FULL'])
      expect(errors[0]?.next).toContain('df -h')
      // The same process goes on by itself once there is room.
      const filler = join(directory, '..', 'filler')
      truncateSync(filler, statSync(filler).size - 20_000_000)
      expect(await driver.call('tenants_add', add(1_000_000))).toHaveProperty('tenant')

      // To the last byte: not even a lock file can be written now.
      writeFileSync(join(directory, '..', 'rest'), Buffer.alloc(statfsSync(directory).bavail * bsize))
      await driver.close()
      expect(await lookAtOwner(directory)).toMatchObject({ state: 'free' })
      expect(await failure(openEmbedded(connectionTo(directory), built.internals))).toMatchObject({ code: 'DISK_FULL' })

      for (const name of ['filler', 'rest']) rmSync(join(directory, '..', name))
      const again = await openEmbedded(connectionTo(directory), built.internals)
      expect(await again.call('tenants_add', add(1_000_000))).toHaveProperty('tenant')
      await again.close()
    } finally {
      await driver.close()
    }
  },
  60_000,
)

test.skipIf(whyNoMounts !== undefined)(
  'a database that does not fit is not created, and nothing of it is left',
  async () => {
    const directory = join(mount(built.folder(), 8), '.tms')
    const error = await failure(openEmbedded(connectionTo(directory, { create: true }), built.internals))
    expect(error.code).toBe('DISK_FULL')
    expect(readdirSync(directory)).toEqual(['owner.1.json'])
  },
)

test.skipIf(whyNoMounts !== undefined)('a folder on a read-only disk is said to be unwritable', async () => {
  const place = mount(built.folder(), 120)
  const directory = join(place, '.tms')
  cpSync(join(await built.database(), 'db'), join(directory, 'db'), { recursive: true })
  chmodSync(directory, 0o700)
  execFileSync('mount', ['-o', 'remount,ro', place])
  const error = await failure(openEmbedded(connectionTo(directory), built.internals))
  expect(error).toMatchObject({ code: 'FILE_UNWRITABLE', exit: 3 })
})

test('a folder that this user may not write to is said to be unwritable', async (context) => {
  if (process.getuid?.() === 0) return context.skip('root may write anywhere')
  const directory = await built.database()
  chmodSync(directory, 0o500)
  try {
    expect(await failure(openEmbedded(connectionTo(directory), built.internals))).toMatchObject({
      code: 'FILE_UNWRITABLE',
    })
  } finally {
    chmodSync(directory, 0o700)
  }
})
