import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import type { ArchiveFormat } from '../../src/evidence/archive-forms.ts'
import { exportEvidence } from '../../src/evidence/archive.ts'
import { verifyScript } from '../../src/evidence/verify-script.ts'
import { archiveSource } from '../../src/evidence/verify-archive.ts'
import { openSource } from '../../src/evidence/verify-inputs.ts'
import { folderSource } from '../../src/evidence/verify-source.ts'
import { ArchiveBroken, readTar } from '../../src/evidence/verify-tar.ts'
import { ArchiveUnread, readZip } from '../../src/evidence/verify-zip.ts'
import { verifyEvidence, type Verification } from '../../src/evidence/verify.ts'
import { temporary, writeDays } from './fixture.ts'
import { checkpointNote, flipped, packsOf, startChain, testKey, tombstoneOf } from './packs.ts'

const range = { from: '2026-10-01', to: '2026-10-04' }
const formats: readonly ArchiveFormat[] = ['tar.gz', 'zip']

async function fourDays() {
  const key = testKey()
  const chain = startChain(key)
  const packs = await packsOf(chain, range.from, 4, key)
  const root = writeDays(packs)
  const checkpoint = { name: 'kept.txt', note: await checkpointNote(chain.ledger, key), since: null }
  return { key, chain, packs, root, options: { keys: [key], checkpoint, range } }
}

type Days = Awaited<ReturnType<typeof fourDays>>

async function exported({ root, key }: Days, format: ArchiveFormat, out = join(temporary(), `x.${format}`)) {
  return exportEvidence({ root, range, format, out, keys: [key], allowGaps: false })
}

function places({ broken }: Verification): string {
  return broken.map(({ day, file, what }) => `${day ?? '-'} ${file}: ${what}`).join('\n')
}

for (const format of formats) {
  test(`a ${format} of four days has the same bytes each time, and is verified as it is`, async () => {
    const days = await fourDays()
    const one = await exported(days, format)
    // other times, another order of being written, another time zone
    const copy = join(temporary(), 'green-posture')
    mkdirSync(copy)
    for (const { day } of [...days.packs].reverse()) cpSync(join(days.root, day), join(copy, day), { recursive: true })
    const zone = process.env.TZ
    process.env.TZ = 'Pacific/Kiritimati'
    const two = await exported({ ...days, root: copy }, format)
    if (zone === undefined) delete process.env.TZ
    else process.env.TZ = zone
    expect(two.sha256).toBe(one.sha256)
    expect(readFileSync(two.out).equals(readFileSync(one.out))).toBe(true)
    const found = await verifyEvidence(await archiveSource(one.out), days.options)
    expect(places(found)).toBe('')
    expect(found.verdict).toBe('verified')
  })
}

test('a gzip of ours tells neither a time nor a system', async () => {
  const { out } = await exported(await fourDays(), 'tar.gz')
  const header = readFileSync(out).subarray(0, 10)
  expect([header.readUInt32LE(4), header[9]]).toEqual([0, 255])
})

const noUnpacking = spawnSync('tar', ['--version']).status !== 0 || spawnSync('unzip', ['-v']).status !== 0
test.skipIf(noUnpacking)(
  `what tar and unzip unpack of it verifies, with VERIFY-ALL.sh too; what tar and zip pack again does too${noUnpacking ? ': skipped, tar or unzip is not installed' : ''}`,
  async () => {
    const days = await fourDays()
    const home = temporary()
    for (const format of formats) {
      const { out } = await exported(days, format)
      const unpacked = join(home, format)
      mkdirSync(unpacked)
      const [program, ...args] =
        format === 'zip' ? ['unzip', '-q', out, '-d', unpacked] : ['tar', '-C', unpacked, '-xzf', out]
      expect(spawnSync(program, args).status).toBe(0)
      const folder = join(unpacked, 'tms-evidence-2026-10-01-2026-10-04')
      expect((await verifyEvidence(await folderSource(folder), days.options)).verdict).toBe('verified')
      writeFileSync(join(home, 'key.pem'), days.key.publicKeyPem)
      writeFileSync(join(home, 'VERIFY.sh'), verifyScript)
      const all = spawnSync('sh', [join(folder, 'VERIFY-ALL.sh'), 'key.pem', 'VERIFY.sh'], {
        cwd: home,
        encoding: 'utf8',
      })
      expect([all.status, all.stdout.match(/passed/g)?.length]).toEqual([0, 4])

      for (const [name, words] of [
        ['gnu.tar.gz', ['tar', '-czf', join(home, 'gnu.tar.gz'), '.']],
        ['pax.tar', ['tar', '--format=pax', '-cf', join(home, 'pax.tar'), '.']],
        ['info.zip', ['zip', '-qr', join(home, 'info.zip'), '.']],
      ] as const) {
        rmSync(join(home, name), { force: true })
        const [packer, ...more] = words
        if (spawnSync(packer, more, { cwd: unpacked }).error) continue
        const found = await verifyEvidence(await archiveSource(join(home, name)), days.options)
        expect([name, places(found), found.verdict]).toEqual([name, '', 'verified'])
      }
    }
  },
)

test('a missing day is refused by name, and with --allow-gaps it stands on the cover', async () => {
  const days = await fourDays()
  rmSync(join(days.root, '2026-10-03'), { recursive: true })
  const out = join(temporary(), 'x.tar.gz')
  await expect(exported(days, 'tar.gz', out)).rejects.toThrow('the pack of 2026-10-03 is missing')
  const made = await exportEvidence({ ...days, range, format: 'tar.gz', out, keys: [days.key], allowGaps: true })
  const cover = readTar(gunzipSync(readFileSync(made.out))).find(({ path }) => path.endsWith('COVER.txt'))
  expect(cover?.kind === 'file' && Buffer.from(cover.bytes).toString()).toContain('2026-10-03  MISSING')
})

test('an archive of some days says which they are: it is verified without --days, and misses its first and its last', async () => {
  const days = await fourDays()
  const part = { from: '2026-10-02', to: '2026-10-04' }
  for (const format of formats) {
    const out = join(temporary(), `x.${format}`)
    await exportEvidence({ root: days.root, range: part, format, out, keys: [days.key], allowGaps: false })
    const options = { keys: [days.key], checkpoint: days.options.checkpoint }
    const source = await archiveSource(out)
    const found = await verifyEvidence(source, options)
    expect([places(found), found.verdict, found.range]).toEqual(['', 'verified', part])
    expect(found.unchecked.join()).toContain('RANGE.txt says so, and is not signed')
    for (const day of [part.from, part.to]) {
      const without = { ...source, packs: source.packs.filter(({ folder }) => folder !== day) }
      expect(places(await verifyEvidence(without, options))).toContain(`${day} ${day}: the day is missing`)
    }
  }
})

test('tombstones go with the days, and markup in a pack is no markup on the cover', async () => {
  const days = await fourDays()
  const [first] = days.packs
  if (!first) throw new Error('four days were made')
  mkdirSync(join(days.root, 'tombstones'))
  const text = await tombstoneOf(days.chain, first, days.key, '2026-11-10T00:00:00.000000Z')
  writeFileSync(join(days.root, 'tombstones/2026-10-01.json'), text)
  rmSync(join(days.root, '2026-10-01'), { recursive: true })
  writeFileSync(join(days.root, '2026-10-02/<script>alert(1)<'), '')
  const { out } = await exported(days, 'zip')
  const files = readZip(readFileSync(out), 1e9)
  const cover = files.find(({ path }) => path.endsWith('COVER.html'))
  const html = cover?.kind === 'file' ? Buffer.from(cover.bytes).toString() : ''
  expect(html).toContain('expired: a tombstone')
  expect(html).toContain('&lt;script&gt;')
  expect(html).not.toContain('<script')
  const found = await verifyEvidence(await archiveSource(out), days.options)
  expect(found.days.map(({ kind, verdict }) => `${kind} ${verdict}`)).toEqual([
    'tombstone verified',
    'pack verified',
    'pack verified',
    'pack verified',
  ])
})

test('any changed bit of an archive is harmless or caught: no fact of it is ever another one', async () => {
  const days = await fourDays()
  for (const format of formats) {
    const { out } = await exported(days, format)
    const bytes = readFileSync(out)
    for (let n = 0; n < 40; n += 1) {
      writeFileSync(out, flipped(bytes, Math.floor(Math.random() * bytes.length * 8)))
      const found = await archiveSource(out).then(
        (source) => verifyEvidence(source, days.options),
        () => null,
      )
      if (found?.verdict === 'verified') {
        expect(found.days.map(({ manifest_sha256 }) => manifest_sha256)).toEqual(
          (await verifyEvidence(await folderSource(days.root), days.options)).days.map((day) => day.manifest_sha256),
        )
      }
    }
  }
})

// ---- archives that somebody made to fool us

/** A tar as simple as can be: our own exporter makes none of these. */
function tarOf(entries: readonly { name: string; link?: string; text?: string }[]): Buffer {
  const blocks = entries.flatMap(({ name, link, text = '' }) => {
    const header = Buffer.alloc(512)
    header.write(name)
    header.write('0000644\0', 100)
    header.write(`${text.length.toString(8).padStart(11, '0')}\0`, 124)
    header.write('        ', 148)
    header.write(link === undefined ? '0' : '2', 156)
    header.write(link ?? '', 157)
    header.write('ustar\0' + '00', 257)
    const sum = header.reduce((total, byte) => total + byte, 0)
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
    const body = Buffer.alloc(Math.ceil(text.length / 512) * 512)
    body.write(text)
    return [header, body]
  })
  return Buffer.concat([...blocks, Buffer.alloc(1024)])
}

test('names that lead out, links, and names that are there twice are refused, and nothing is written', async () => {
  const home = temporary()
  const path = join(home, 'x.tar.gz')
  for (const [entries, expected] of [
    [[{ name: 'd/2026-10-01/../../../../etc/x', text: 'x' }], 'leads out of the archive'],
    [[{ name: 'd/2026-10-01/a\\..\\b', text: 'x' }], 'leads out of the archive'],
    [[{ name: 'd/2026-10-01/flags.json', link: '/etc/passwd' }], 'is a link'],
    [
      [
        { name: 'd/2026-10-01/flags.json', text: '1' },
        { name: './d/2026-10-01/flags.json', text: '2' },
      ],
      'is in the archive twice',
    ],
    [
      [
        { name: 'a/2026-10-01/flags.json', text: '1' },
        { name: 'b/2026-10-02/flags.json', text: '2' },
      ],
      'is a day in another folder than the other days',
    ],
  ] as const) {
    writeFileSync(path, gzipSync(tarOf(entries)))
    expect(places(await verifyEvidence(await archiveSource(path), { keys: [] }))).toContain(expected)
  }
})

test('a cut archive is broken; one of an unknown kind, or encrypted, is said to be unreadable, with what to type', async () => {
  const days = await fourDays()
  for (const format of formats) {
    const { out } = await exported(days, format)
    const bytes = readFileSync(out)
    writeFileSync(out, bytes.subarray(0, bytes.length - 700))
    expect(places(await verifyEvidence(await archiveSource(out), days.options))).toContain('is damaged')
  }
  const other = join(temporary(), 'x.7z')
  writeFileSync(other, '7z¼¯')
  await expect(archiveSource(other)).rejects.toMatchObject({ code: 'FILE_UNREADABLE' })
})

test('whatever the bytes are, the readers end with an answer or with one of their two errors', () => {
  const tries = { numRuns: 300 }
  const known = (error: unknown) => error instanceof ArchiveBroken || error instanceof ArchiveUnread
  const answers = (read: () => unknown) => {
    try {
      read()
      return true
    } catch (error) {
      return known(error)
    }
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 2048 }), (bytes) => answers(() => readTar(bytes))),
    tries,
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), fc.nat(600), (bytes, at) => {
      const zip = Buffer.concat([bytes, Buffer.from('504b0506', 'hex'), Buffer.alloc(18)])
      zip.writeUInt16LE(1, bytes.length + 10)
      zip.writeUInt16LE(1, bytes.length + 8)
      zip.writeUInt32LE(Math.max(0, bytes.length - at), bytes.length + 12)
      zip.writeUInt32LE(Math.min(at, bytes.length), bytes.length + 16)
      return answers(() => readZip(zip, 1e6))
    }),
    tries,
  )
})

test('a range that ends before it begins is said to be none, as a name too', async () => {
  for (const what of ['2026-11-20..2026-11-19', '2026-11-20..2026-11-31', '2026-11..2026-12']) {
    const opened = openSource(what, { artifacts: () => Promise.resolve(temporary()) })
    await expect(opened).rejects.toMatchObject({ code: 'USAGE', message: expect.stringContaining('no range of days') })
  }
})

test('a day that is a link, and a link beside the days, are no packs', async () => {
  const days = await fourDays()
  rmSync(join(days.root, '2026-10-02'), { recursive: true })
  symlinkSync('2026-10-01', join(days.root, '2026-10-02'))
  const found = await verifyEvidence(await folderSource(days.root), days.options)
  expect(places(found)).toContain('2026-10-02 2026-10-02: the day is a link, not a folder')
  // nor is one that is named itself, whatever it leads to
  const elsewhere = join(temporary(), '2026-10-03')
  symlinkSync(join(days.root, '2026-10-03'), elsewhere)
  for (const path of [elsewhere, `${elsewhere}/`]) {
    const named = places(await verifyEvidence(await folderSource(path), { keys: [days.key] }))
    expect(named).toContain('2026-10-03 2026-10-03: the day is a link, not a folder')
  }
})
