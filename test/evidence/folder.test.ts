import { execFileSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { settleFolders, writePackFolder, type PackBytes, type Self } from '../../src/evidence/folder.ts'
import { TmsError } from '../../src/errors.ts'

let root: string
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'tms-folder-'))
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

const living: Self = { host: '0123abcd', pid: 7, alive: () => true }
/** The processes that began are all dead. */
const later: Self = { host: '0123abcd', pid: 8, alive: () => false }

const day = '2026-10-31'
const pack = (revision: number): PackBytes => ({
  day,
  revision,
  files: new Map([
    ['manifest.json', Buffer.from(`{"revision":${revision}}\n`)],
    ['flags.json', Buffer.from(`flags of ${revision}\n`)],
    ['SHA256SUMS.sig', Buffer.from([0, 255, revision])],
  ]),
})

const names = (folder = root) => readdirSync(folder).sort()
function lies(revision: number, under = day): void {
  const { files } = pack(revision)
  expect(names(join(root, under))).toEqual([...files.keys()].sort())
  for (const [name, bytes] of files) expect(readFileSync(join(root, under, name))).toEqual(Buffer.from(bytes))
}
function put(name: string, revision: number): void {
  mkdirSync(join(root, name))
  for (const [file, bytes] of pack(revision).files) writeFileSync(join(root, name, file), bytes)
}

describe('writing the folder of a pack', () => {
  test('leaves exactly its files, and nothing beside them', async () => {
    expect(await writePackFolder(root, pack(1), living)).toBe('written')
    lies(1)
    expect(names()).toEqual([day])
  })

  test('makes the folders above it', async () => {
    root = join(root, 'artifacts', 'green-posture')
    await writePackFolder(root, pack(1), living)
    lies(1)
  })

  test('touches nothing when the same bytes lie there', async () => {
    await writePackFolder(root, pack(1), living)
    const before = statSync(join(root, day)).ino
    expect(await writePackFolder(root, pack(1), living)).toBe('same')
    expect(statSync(join(root, day)).ino).toBe(before)
  })

  test('replaces an older revision as a whole, and whatever somebody changed, added or took away', async () => {
    await writePackFolder(root, pack(1), living)
    expect(await writePackFolder(root, pack(2), living)).toBe('written')
    lies(2)
    const spoil: (() => void)[] = [
      () => writeFileSync(join(root, day, 'flags.json'), 'changed'),
      () => writeFileSync(join(root, day, 'extra'), ''),
      () => rmSync(join(root, day, 'flags.json')),
      () => {
        rmSync(join(root, day, 'flags.json'))
        symlinkSync('/etc/hostname', join(root, day, 'flags.json'))
      },
      () => {
        rmSync(join(root, day), { recursive: true })
        writeFileSync(join(root, day), 'a file')
      },
    ]
    for (const damage of spoil) {
      damage()
      expect(await writePackFolder(root, pack(2), living)).toBe('written')
      lies(2)
      expect(names()).toEqual([day])
    }
  })

  test('never puts an older revision in the place of a newer one', async () => {
    await writePackFolder(root, pack(3), living)
    expect(await writePackFolder(root, pack(2), living)).toBe('kept')
    lies(3)
    expect(names()).toEqual([day])
  })

  test('puts it there all the same when it is told to: a folder may say of itself what it likes', async () => {
    await writePackFolder(root, pack(200), living)
    expect(await writePackFolder(root, { ...pack(2), force: true }, living)).toBe('written')
    lies(2)
    expect(names()).toEqual([day])
  })

  test('many at once end with the newest revision, and nothing beside it', async () => {
    for (let round = 0; round < 30; round += 1) {
      const revisions = [1, 2, 3, 4, 5, 6].map((n) => n + round * 6)
      await Promise.all(revisions.map((revision) => writePackFolder(root, pack(revision % 256), living)))
      lies(Math.max(...revisions))
      expect(names()).toEqual([day])
    }
  })
})

describe('what a killed process leaves', () => {
  const left = (kind: string, who = living) => `.${day}.${who.host}-${who.pid}-00ff00ff00ff.${kind}`

  test('while it wrote: the old folder, or none, and what was written is cleared away', async () => {
    put(left('tmp'), 2)
    put(day, 1)
    await settleFolders(root, later)
    lies(1)
    expect(names()).toEqual([day])
  })

  test('before its folder had its place: the new one takes it where there is none', async () => {
    put(left('new'), 2)
    await settleFolders(root, later)
    lies(2)
    expect(names()).toEqual([day])
  })

  test('before its folder had its place: the old one stays where there is one', async () => {
    put(left('new'), 2)
    put(day, 1)
    await settleFolders(root, later)
    lies(1)
    expect(names()).toEqual([day])
  })

  test('between the two steps of a swap: the new one takes the place', async () => {
    put(left('new'), 2)
    put(left('old'), 1)
    await settleFolders(root, later)
    lies(2)
    expect(names()).toEqual([day])
  })

  test('with only the old one left: it comes back', async () => {
    put(left('old'), 1)
    put(left('tmp'), 2)
    await settleFolders(root, later)
    lies(1)
    expect(names()).toEqual([day])
  })

  test('after the swap: the old one is cleared away', async () => {
    put(left('old'), 1)
    put(day, 2)
    await settleFolders(root, later)
    lies(2)
    expect(names()).toEqual([day])
  })

  test('is left alone while its process lives, on this machine or on another', async () => {
    const other = { ...living, host: 'ffff0000' }
    for (const who of [living, other]) put(left('tmp', who), 1)
    await settleFolders(root, living)
    expect(names()).toHaveLength(2)
  })

  test('is ended after a while whoever has its process number now', async () => {
    put(left('old'), 1)
    const old = new Date(Date.now() - 3_600_000)
    utimesSync(join(root, left('old')), old, old)
    await settleFolders(root, living)
    lies(1)
  })

  test('is told apart from what else lies there', async () => {
    mkdirSync(join(root, 'tombstones'))
    mkdirSync(join(root, '.2026-10-31.tmp'))
    writeFileSync(join(root, 'notes.txt'), 'mine')
    await settleFolders(root, later)
    expect(names()).toEqual(['.2026-10-31.tmp', 'notes.txt', 'tombstones'])
  })

  test('is no matter where there is no folder yet', async () => {
    await expect(settleFolders(join(root, 'nowhere'), later)).resolves.toBeUndefined()
  })
})

const whyNoMounts = ((): string | undefined => {
  if (process.getuid?.() !== 0) return 'only root can mount a small disk'
  try {
    execFileSync('unshare', ['--mount', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { stdio: 'pipe' })
    return undefined
  } catch {
    return 'this system allows no mounts'
  }
})()
if (whyNoMounts !== undefined) process.stdout.write(`folder.test.ts: the full disk is skipped, ${whyNoMounts}\n`)

test.skipIf(whyNoMounts !== undefined)('a full disk is said to be full, and what lay there stays', async () => {
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', root], { stdio: 'pipe' })
  try {
    await writePackFolder(root, pack(1), living)
    const large = { ...pack(2), files: new Map([...pack(2).files, ['index.html', Buffer.alloc(400_000)]]) }
    const error: unknown = await writePackFolder(root, large, living).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(TmsError)
    expect(error).toMatchObject({ code: 'DISK_FULL', exit: 3 })
    lies(1)
    expect(names()).toEqual([day])
  } finally {
    execFileSync('umount', ['-l', root])
  }
})

test('a folder that may not be written is said to be so', async () => {
  writeFileSync(join(root, 'artifacts'), 'a file where a folder must be')
  const error: unknown = await writePackFolder(join(root, 'artifacts'), pack(1), living).catch(
    (thrown: unknown) => thrown,
  )
  expect(error).toMatchObject({ code: 'FILE_UNWRITABLE', exit: 3 })
})
