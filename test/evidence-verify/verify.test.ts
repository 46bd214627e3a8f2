import { renameSync, rmSync, symlinkSync, writeFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parseConsistency } from '../../src/proof/consistency.ts'
import { daysSource, folderSource } from '../../src/evidence/verify-source.ts'
import { verifyEvidence, type Verification, type VerifyOptions } from '../../src/evidence/verify.ts'
import { sha256Hex } from '../../src/proof/bytes.ts'
import { cosign } from '../../src/proof/note.ts'
import { writeDays } from './fixture.ts'
import {
  addRow,
  checkpointNote,
  flipped,
  nextPack,
  packsOf,
  proofBetween,
  seal,
  startChain,
  startLedger,
  testKey,
  tombstoneOf,
  type Chain,
  type Pack,
  type TestKey,
} from './packs.ts'

async function fiveDays(): Promise<{ key: TestKey; chain: Chain; packs: Pack[]; folder: string }> {
  const key = testKey()
  const chain = startChain(key)
  const packs = await packsOf(chain, '2026-10-01', 5, key)
  return { key, chain, packs, folder: writeDays(packs) }
}

async function outside(chain: Chain, key: TestKey, since: string | null = null) {
  return { name: 'kept.txt', note: await checkpointNote(chain.ledger, key), since }
}

async function verify(folder: string, options: VerifyOptions): Promise<Verification> {
  return verifyEvidence(await daysSource(folder), options)
}

/** What is wrong, one line each. */
function places({ broken }: Verification): string[] {
  return broken.map(({ day, file, what }) => `${day ?? '-'} ${file}: ${what}`)
}

test('days that nobody touched are verified under the key and the checkpoint from outside', async () => {
  const { key, chain, folder } = await fiveDays()
  const found = await verify(folder, { keys: [key], checkpoint: await outside(chain, key) })
  expect(places(found)).toEqual([])
  expect(found.verdict).toBe('verified')
  expect(found.days.map(({ day, verdict }) => `${day} ${verdict}`)).toEqual([
    '2026-10-01 verified',
    '2026-10-02 verified',
    '2026-10-03 verified',
    '2026-10-04 verified',
    '2026-10-05 verified',
  ])
})

test('without a key, or without a checkpoint, they are unanchored and it says why', async () => {
  const { key, folder } = await fiveDays()
  const noCheckpoint = await verify(folder, { keys: [key] })
  expect(noCheckpoint.verdict).toBe('unanchored')
  expect(noCheckpoint.unanchored.join()).toContain('--checkpoint')
  const nothing = await verify(folder, { keys: [] })
  expect(nothing.verdict).toBe('unanchored')
  expect(nothing.unanchored.join()).toContain('--key')
})

test('a checkpoint older than the newest days anchors those it holds, and only those', async () => {
  const { key, chain, packs, folder } = await fiveDays()
  const size = packs[2]?.checkpointSize ?? 0
  const checkpoint = { name: 'kept.txt', note: await checkpointNote(chain.ledger, key, size), since: null }
  const found = await verify(folder, { keys: [key], checkpoint })
  expect(found.days.map(({ verdict }) => verdict)).toEqual([
    'verified',
    'verified',
    'verified',
    'unanchored',
    'unanchored',
  ])
  expect(found.verdict).toBe('unanchored')
  expect(found.unanchored).toEqual([
    `The checkpoint kept.txt (${size} rows) is older than 2 days, 2026-10-04 the first: keep a newer one (tms ledger checkpoint).`,
  ])
})

test('a checkpoint beyond the newest pack needs the proof that connects them', async () => {
  const { key, chain, packs, folder } = await fiveDays()
  const size = packs[4]?.checkpointSize ?? 0
  for (let n = 0; n < 7; n += 1) addRow(chain.ledger, '2026-10-06', 'later')
  const checkpoint = await outside(chain, key)
  expect((await verify(folder, { keys: [key], checkpoint })).verdict).toBe('unanchored')
  const consistency = parseConsistency(proofBetween(chain.ledger, size, size + 7))
  const found = await verify(folder, { keys: [key], checkpoint, proofs: [{ name: 'proof.txt', consistency }] })
  expect(places(found)).toEqual([])
  expect(found.verdict).toBe('verified')
})

test('a checkpoint that nothing connects is answered with the command that does; proofs may be several, or lead elsewhere', async () => {
  const { key, chain, packs, folder } = await fiveDays()
  const size = packs[4]?.checkpointSize ?? 0
  for (let n = 0; n < 7; n += 1) addRow(chain.ledger, '2026-10-06', 'later')
  const checkpoint = { ...(await outside(chain, key)), path: '../kept.txt' }
  for (let n = 0; n < 7; n += 1) addRow(chain.ledger, '2026-10-07', 'much later')
  const proof = (from: number, to: number, name = `${from}-${to}.txt`) => ({
    name,
    consistency: parseConsistency(proofBetween(chain.ledger, from, to)),
  })
  const between = '--to ../kept.txt --out proof.txt'
  const days = await verify(folder, { keys: [key], checkpoint })
  expect(days.unanchored).toEqual([
    expect.stringContaining(`tms ledger prove --from ${folder}/2026-10-05/checkpoint.txt ${between}`),
  ])
  const pack = join(folder, '2026-10-03/')
  const single = await verifyEvidence(await folderSource(pack), { keys: [key], checkpoint })
  expect(single.unanchored.join()).toContain(`tms ledger prove --from ${pack}checkpoint.txt ${between}`)

  const elsewhere = await verify(folder, { keys: [key], checkpoint, proofs: [proof(size + 9, size + 14)] })
  expect([elsewhere.verdict, places(elsewhere)]).toEqual(['unanchored', []])
  expect(elsewhere.unanchored.join()).toContain(`${size + 9}-${size + 14}.txt is not connected with kept.txt`)
  const steps = [proof(size + 3, size + 7), proof(size, size + 3)]
  expect((await verify(folder, { keys: [key], checkpoint, proofs: steps })).verdict).toBe('verified')

  const wrong = proof(size, size + 7)
  const spoilt = { ...wrong, consistency: { ...wrong.consistency, hashes: [] } }
  expect(places(await verify(folder, { keys: [key], checkpoint, proofs: [spoilt] }))).toEqual([
    `- ${wrong.name}: does not show that the ledger of ${size} rows is the beginning of the one of ${size + 7}`,
  ])
})

test('a dropped file, an added one, a link and a subfolder are named', async () => {
  const { key, folder } = await fiveDays()
  rmSync(join(folder, '2026-10-01/flags.json'))
  writeFileSync(join(folder, '2026-10-02/note.txt'), 'hello')
  rmSync(join(folder, '2026-10-03/controls.json'))
  symlinkSync('../2026-10-02/controls.json', join(folder, '2026-10-03/controls.json'))
  mkdirSync(join(folder, '2026-10-04/.hidden'))
  const found = await verify(folder, { keys: [key] })
  expect(places(found)).toEqual(
    expect.arrayContaining([
      '2026-10-01 flags.json: is missing',
      '2026-10-02 note.txt: is in the folder and not in SHA256SUMS',
      '2026-10-03 controls.json: is no ordinary file of a size that packs have',
      '2026-10-04 .hidden: a pack has no file with such a name',
    ]),
  )
  expect(found.verdict).toBe('broken')
})

test('two days that changed places are named', async () => {
  const { key, folder } = await fiveDays()
  renameSync(join(folder, '2026-10-02'), join(folder, 'x'))
  renameSync(join(folder, '2026-10-03'), join(folder, '2026-10-02'))
  renameSync(join(folder, 'x'), join(folder, '2026-10-03'))
  const found = places(await verify(folder, { keys: [key] }))
  expect(found).toContain("2026-10-02 manifest.json: the folder's name is not the manifest's day")
  expect(found).toContain("2026-10-03 manifest.json: the folder's name is not the manifest's day")
})

test('a deleted day is a gap, wherever in the range it was', async () => {
  for (const day of ['2026-10-02', '2026-10-05']) {
    const { key, folder } = await fiveDays()
    rmSync(join(folder, day), { recursive: true })
    const found = await verify(folder, { keys: [key], range: { from: '2026-10-01', to: '2026-10-05' } })
    expect(places(found)).toEqual([`${day} ${day}: the day is missing: neither a pack nor a tombstone`])
  }
  const { key, folder } = await fiveDays()
  rmSync(join(folder, '2026-10-01'), { recursive: true })
  const found = await verify(folder, { keys: [key], range: { from: '2026-10-01', to: '2026-10-05' } })
  expect(places(found)).toEqual(['2026-10-01 2026-10-01: the day is missing: neither a pack nor a tombstone'])
})

test('the oldest day of a folder is missed by name, because the next one names it; days asked for may begin later', async () => {
  const { key, chain, packs, folder } = await fiveDays()
  rmSync(join(folder, '2026-10-01'), { recursive: true })
  const options = { keys: [key], checkpoint: await outside(chain, key) }
  const found = await verify(folder, options)
  expect(places(found)).toEqual([
    '2026-10-01 2026-10-01: the day is missing: neither a pack nor a tombstone, and the pack of 2026-10-02 names it',
  ])
  expect(found.days[0]).toMatchObject({ day: '2026-10-01', kind: 'missing', verdict: 'broken' })
  const later = await verify(folder, { ...options, range: { from: '2026-10-02', to: '2026-10-05' } })
  expect([places(later), later.verdict]).toEqual([[], 'verified'])
  expect(later.unchecked.join()).toContain('the pack of 2026-10-01 and those before it')

  // nor can the oldest tombstone go
  const second = packs[1]
  if (!second) throw new Error('five days were made')
  mkdirSync(join(folder, 'tombstones'))
  rmSync(join(folder, second.day), { recursive: true })
  const text = await tombstoneOf(chain, second, key, '2026-11-10T00:00:00.000000Z')
  writeFileSync(join(folder, 'tombstones/2026-10-02.json'), text)
  expect(places(await verify(folder, options))).toEqual([
    '2026-10-02 tombstones/2026-10-02.json: names a pack before it, and neither that nor its tombstone is here',
  ])
})

test('days before the first pack that there ever was are no gap', async () => {
  const { key, chain, folder } = await fiveDays()
  const range = { from: '2026-09-29', to: '2026-10-05' }
  const found = await verify(folder, { keys: [key], checkpoint: await outside(chain, key), range })
  expect(found.verdict).toBe('verified')
  expect(found.days.slice(0, 2).map(({ kind }) => kind)).toEqual(['before', 'before'])
})

test('a tombstone in place of an expired day keeps the chain; a forged one does not', async () => {
  const { key, chain, packs, folder } = await fiveDays()
  const [first, second] = packs
  if (!first || !second) throw new Error('five days were made')
  mkdirSync(join(folder, 'tombstones'))
  for (const pack of [first, second]) {
    rmSync(join(folder, pack.day), { recursive: true })
    const text = await tombstoneOf(chain, pack, key, '2026-11-10T00:00:00.000000Z')
    writeFileSync(join(folder, 'tombstones', `${pack.day}.json`), text)
  }
  const options = { keys: [key], checkpoint: await outside(chain, key) }
  const found = await verify(folder, options)
  expect(places(found)).toEqual([])
  expect(found.verdict).toBe('verified')
  expect(found.days.slice(0, 3).map(({ kind }) => kind)).toEqual(['tombstone', 'tombstone', 'pack'])

  const forged = await tombstoneOf(chain, { ...second, files: first.files }, key, '2026-11-10T00:00:00.000000Z')
  writeFileSync(join(folder, 'tombstones', `${second.day}.json`), forged)
  expect(places(await verify(folder, options))).toContain(
    '2026-10-03 manifest.json: names another manifest of 2026-10-02 than lies there',
  )
  const stranger = await tombstoneOf(chain, second, testKey(), '2026-11-10T00:00:00.000000Z')
  writeFileSync(join(folder, 'tombstones', `${second.day}.json`), stranger)
  expect(places(await verify(folder, options)).join()).toContain('by an unknown key')
})

test("a ledger whose tail was cut behind a checkpoint that somebody knows is named, and can't be made to fit", async () => {
  const key = testKey()
  const chain = startChain(key)
  const packs = await packsOf(chain, '2026-10-01', 3, key)
  const checkpoint = await outside(chain, key, '2026-10-04T00:30:00.000000Z')
  // the last day and what was recorded of it is taken back, and told anew with fewer rows
  const [one, two] = packs
  if (!one || !two) throw new Error('three days were made')
  const cut = startChain(key)
  cut.ledger.lines.push(...chain.ledger.lines.slice(0, two.checkpointSize))
  cut.ledger.leaves.push(...chain.ledger.leaves.slice(0, two.checkpointSize))
  cut.last = {
    day: two.day,
    manifest_sha256: sha256Hex(two.files.get('manifest.json') ?? ''),
    treeSize: two.manifest.ledger.tree_size,
    checkpointSize: two.checkpointSize,
  }
  const told = await nextPack(cut, '2026-10-03', key, { rows: 1, as_of: '2026-10-04T00:40:00.000000Z' })
  const folder = writeDays([one, two, told])
  const found = await verify(folder, { keys: [key], checkpoint })
  expect(places(found).join()).toContain('2026-10-03 checkpoint.txt: is smaller than kept.txt')
  expect(places(found).join()).toContain('tail was cut')
  // without the time it can't be told from a newer checkpoint: not verified all the same
  const unsure = await verify(folder, { keys: [key], checkpoint: { ...checkpoint, since: null } })
  expect(unsure.verdict).toBe('unanchored')
  expect(unsure.unanchored.join()).toContain('the tail was cut')
})

test('an old row rewritten with every hash after it contradicts the checkpoint and the days before', async () => {
  const { key, chain, packs } = await fiveDays()
  const checkpoint = await outside(chain, key)
  // all is made anew, with one other row on the first day: perfect in itself
  const other = startChain(key)
  addRow(other.ledger, '2026-10-01', 'something else')
  const forged = [
    await nextPack(other, '2026-10-01', key, { rows: 4 }),
    ...(await packsOf(other, '2026-10-02', 4, key)),
  ]
  const alone = await verify(writeDays(forged), { keys: [key] })
  expect(places(alone)).toEqual([])
  expect(alone.verdict).toBe('unanchored')
  const caught = places(await verify(writeDays(forged), { keys: [key], checkpoint }))
  expect(caught.join()).toContain('history was rewritten')
  // only the newest pack is told anew: its ledger isn't the one of those that were handed out already
  const mixed = places(await verify(writeDays([...packs.slice(0, 4), ...forged.slice(4)]), { keys: [key] }))
  expect(mixed).toEqual(['2026-10-05 consistency.txt: does not begin at the checkpoint of 2026-10-04'])
})

test('an expired, a revoked and an unknown key are caught by name', async () => {
  const expired = testKey({ notAfter: '2026-10-02T00:05:00.000000Z' })
  const late = await packsOf(startChain(expired), '2026-10-01', 2, expired)
  expect(places(await verify(writeDays(late), { keys: [expired] })).join()).toContain('the key has expired')

  const first = testKey()
  const second = testKey({ introducedBy: first, notBefore: '2026-10-02T00:00:00.000000Z' })
  const chain = startChain(first)
  const one = await nextPack(chain, '2026-10-01', first)
  chain.keys.push(second)
  first.revokedAt = '2026-10-03T00:00:00.000000Z'
  const two = await nextPack(chain, '2026-10-02', second)
  const three = await nextPack(chain, '2026-10-03', first)
  const revoked = await verify(writeDays([one, two, three]), { keys: [second] })
  expect(
    places(revoked)
      .filter((text) => text.includes('revoked since'))
      .map((text) => text.slice(0, 10)),
  ).toEqual(['2026-10-03'])

  const stranger = testKey()
  const foreign = await packsOf(startChain(stranger), '2026-10-01', 2, stranger)
  expect(places(await verify(writeDays(foreign), { keys: [first] })).join()).toContain('unknown key')
})

test('an expired key is caught by name however far back its pack dates itself, and so is a revoked one', async () => {
  const expired = testKey({ notAfter: '2026-10-02T12:00:00.000000Z' })
  const revoked = testKey()
  for (const [key, word] of [
    [expired, 'the key has expired at 2026-10-02T12:00:00.000000Z'],
    [revoked, 'the key is revoked since 2026-10-02T12:00:00.000000Z'],
  ] as const) {
    const chain = startChain(key)
    const one = await nextPack(chain, '2026-10-01', key)
    if (key === revoked) revoked.revokedAt = '2026-10-02T12:00:00.000000Z'
    const row_at = '2026-10-03T00:10:00.000000Z'
    // the ledger's row tells, and what the day itself allows
    const back = await nextPack(chain, '2026-10-02', key, { as_of: '2026-10-02T11:00:00.000000Z', row_at })
    const found = places(await verify(writeDays([one, back]), { keys: [key] }))
    expect(found).toContain('2026-10-02 manifest.json: is final, and of a moment at which its day was not over')
    expect(found.join()).toMatch(new RegExp(`2026-10-02 SHA256SUMS.sig: is by the key \\w+…, and ${word}`))
  }
})

test('a pack whose moments do not fit its day, its row of the ledger or the pack before it is named', async () => {
  for (const [options, expected] of [
    [
      { as_of: '2026-10-01T23:00:00.000000Z' },
      'manifest.json: is final, and of a moment at which its day was not over',
    ],
    [
      { final: false, as_of: '2026-10-03T00:00:00.000000Z' },
      'manifest.json: is provisional, and of a moment outside its day',
    ],
    [
      { as_of: '2026-10-03T00:10:00.000000Z', row_at: '2026-10-03T00:09:59.000000Z' },
      'manifest-row.txt: was recorded before the facts were gathered',
    ],
    [
      { as_of: '2026-10-03T00:00:00.000000Z', row_at: '2026-10-04T00:00:00.000000Z' },
      'manifest.json: its facts were gathered before those of 2026-10-01',
    ],
    [{ as_of: '2026-10-03T00:00:00.000000Z' }, 'manifest-row.txt: was recorded before the row of 2026-10-01'],
    [{ row_at: 'yesterday' }, 'manifest-row.txt: its time is no moment'],
  ] as const) {
    const key = testKey()
    const chain = startChain(key)
    const one = await nextPack(chain, '2026-10-01', key, { as_of: '2026-10-03T00:05:00.000000Z' })
    const two = await nextPack(chain, '2026-10-02', key, options)
    expect(places(await verify(writeDays([one, two]), { keys: [key] }))).toContain(`2026-10-02 ${expected}`)
  }
})

test('a rotation is followed from the older key to the newer and back', async () => {
  const first = testKey()
  const second = testKey({ introducedBy: first, notBefore: '2026-10-02T00:00:00.000000Z' })
  const chain = startChain(first)
  const one = await nextPack(chain, '2026-10-01', first)
  chain.keys.push(second)
  const two = await nextPack(chain, '2026-10-02', second)
  for (const key of [first, second]) {
    const checkpoint = { name: 'kept.txt', note: await checkpointNote(chain.ledger, second), since: null }
    const found = await verify(writeDays([one, two]), { keys: [key], checkpoint })
    expect(places(found)).toEqual([])
    expect(found.verdict).toBe('verified')
  }
  // somebody who only says that he was introduced
  const thief = testKey({ introducedBy: first })
  const forged = testKey()
  const lie = startChain(first)
  const a = await nextPack(lie, '2026-10-01', first)
  lie.keys.push({ ...forged, introducedBy: { ...first, sign: (bytes) => thief.sign(bytes) } })
  const b = await nextPack(lie, '2026-10-02', forged)
  expect(places(await verify(writeDays([a, b]), { keys: [first] })).join()).toContain('unknown key')
})

test('a key that was rotated out and goes on signing is caught by name, also when its pack says that it never ended', async () => {
  for (const silent of [false, true]) {
    const first = testKey()
    const second = testKey({ introducedBy: first, notBefore: '2026-10-02T12:00:00.000000Z' })
    const chain = startChain(first)
    const one = await nextPack(chain, '2026-10-01', first)
    chain.keys.push(second)
    first.endedAt = '2026-10-02T12:00:00.000000Z'
    const two = await nextPack(chain, '2026-10-02', second)
    const listed = [silent ? { ...first, endedAt: null } : first, second]
    const three = await nextPack(chain, '2026-10-03', first, { listed })
    for (const key of [first, second]) {
      const found = places(await verify(writeDays([one, two, three]), { keys: [key] }))
      expect(found).toContain(
        `2026-10-03 SHA256SUMS.sig: is by the key ${first.fingerprint.slice(0, 16)}…, and another key took over at 2026-10-02T12:00:00.000000Z`,
      )
      if (silent) expect(found.join()).toContain('tells otherwise about the end of the key')
    }
    expect(places(await verify(writeDays([one, two]), { keys: [second] }))).toEqual([])
  }
})

test('a list of keys whose states and moments do not fit is no list of keys', async () => {
  const key = testKey()
  const chain = startChain(key)
  const pack = await nextPack(chain, '2026-10-01', key)
  const text = Buffer.from(pack.files.get('keys.json') ?? '').toString()
  for (const [from, to] of [
    ['"state":"valid"', '"state":"retired"'],
    ['"state":"valid"', '"state":"revoked"'],
    ['"ended_at":null', '"ended_at":"2026-10-01T00:00:00.000000Z"'],
    ['"ended_at":null,', ''],
  ] as const) {
    const files = new Map(pack.files).set('keys.json', Buffer.from(text.replace(from, to)))
    await seal(files, key)
    expect(places(await verify(writeDays([{ day: pack.day, files }]), { keys: [key] })).join()).toContain('keys.json: ')
  }
})

test('a pack that lengthens its own key against what others say is caught', async () => {
  const key = testKey({ notAfter: '2026-10-03T00:05:00.000000Z' })
  const chain = startChain(key)
  const packs = await packsOf(chain, '2026-10-01', 2, key)
  const longer = { ...key, notAfter: '2030-01-01T00:00:00.000000Z' }
  const third = await nextPack(chain, '2026-10-03', longer, { listed: [longer] })
  const found = places(await verify(writeDays([...packs, third]), { keys: [key] }))
  expect(found.join()).toContain('tells another validity of the key')
})

test('one pack is compared with the one before it when that lies beside it', async () => {
  const { key, folder } = await fiveDays()
  const options = { keys: [key] }
  const good = await verifyEvidence(await folderSource(join(folder, '2026-10-03')), options)
  expect(places(good)).toEqual([])
  expect(good.unchecked.join()).not.toContain('the pack of 2026-10-02')
  const manifest = join(folder, '2026-10-02/manifest.json')
  writeFileSync(manifest, flipped(Buffer.from('{"a":1}\n'), 3))
  const bad = await verifyEvidence(await folderSource(join(folder, '2026-10-03')), options)
  expect(places(bad)).toEqual(['2026-10-03 manifest.json: names another manifest of 2026-10-02 than lies there'])
})

test('a pack of the day that is not over says that it is provisional', async () => {
  const { key, chain, packs } = await fiveDays()
  const today = await nextPack(chain, '2026-10-06', key, { final: false, as_of: '2026-10-06T09:00:00.000000Z' })
  const found = await verify(writeDays([...packs, today]), { keys: [key] })
  expect(places(found)).toEqual([])
  expect(found.notes).toEqual(['2026-10-06 is provisional (revision 1): that day was not over.'])
})

test("a witness's word counts only under its key: without that it is not checked, a changed one is found", async () => {
  const { key, chain, packs, folder } = await fiveDays()
  const witness = testKey()
  const { note: plain } = await outside(chain, key)
  const seenAt = (time: string) =>
    cosign(plain, { name: 'witness.example/w1', signer: witness, time: Date.parse(time) / 1000 })
  const note = await seenAt('2026-10-06T00:30:00Z')
  const checkpoint = { name: 'kept.txt', note, since: null }
  const alone = await verify(folder, { keys: [key], checkpoint })
  expect(alone.verdict).toBe('verified')
  expect(alone.unchecked).toContain('that witnesses saw it, and when: witness.example/w1 (--witness-key)')
  const found = await verify(folder, { keys: [key], checkpoint, witnesses: [witness] })
  expect([found.verdict, places(found)]).toEqual(['verified', []])
  expect(found.checked).toContain('the witness witness.example/w1: saw that checkpoint at 2026-10-06T00:30:00.000Z')

  // another time in it, or another bit: nobody believes the time, and whoever has the key sees it
  const [last = ''] = note.trimEnd().split('\n').slice(-1)
  const bytes = Buffer.from(last.split(' ')[2] ?? '', 'base64')
  bytes.writeBigUInt64BE(1n, 4)
  const changed = note.replace(last, `— witness.example/w1 ${bytes.toString('base64')}`)
  const old = { name: 'kept.txt', note: changed, since: null }
  const shorter = writeDays(packs.slice(0, 4))
  expect(places(await verify(shorter, { keys: [key], checkpoint: old }))).toEqual([])
  expect(places(await verify(folder, { keys: [key], checkpoint: old, witnesses: [witness] })).join()).toContain(
    '- kept.txt: the cosignature of witness.example/w1 with the key',
  )
  const other = testKey()
  expect(places(await verify(folder, { keys: [key], checkpoint, witnesses: [other] }))).toEqual([
    `- kept.txt: it is not cosigned by the witness's key ${other.fingerprint.slice(0, 16)}…`,
  ])
  // what it saw before the newest pack here was made is a tail that was cut
  const early = { name: 'kept.txt', note: await seenAt('2026-10-05T00:05:00Z'), since: null }
  expect(places(await verify(shorter, { keys: [key], checkpoint: early, witnesses: [witness] }))).toEqual([
    "2026-10-04 checkpoint.txt: is smaller than kept.txt, which is known since 2026-10-05T00:05:00.000000Z: the ledger's tail was cut",
  ])
})

test('a checkpoint of another ledger or by another key is refused by name', async () => {
  const { key, chain, folder } = await fiveDays()
  const other = startLedger('tms.invalid/ledger/other')
  addRow(other, '2026-10-01', 'x')
  const foreign = { name: 'kept.txt', note: await checkpointNote(other, key), since: null }
  expect(places(await verify(folder, { keys: [key], checkpoint: foreign }))).toEqual([
    '- kept.txt: is a checkpoint of another ledger',
  ])
  const unsigned = { name: 'kept.txt', note: await checkpointNote(chain.ledger, testKey()), since: null }
  expect(places(await verify(folder, { keys: [key], checkpoint: unsigned }))).toEqual([
    '- kept.txt: is not signed by a key that may be believed',
  ])
})

test('what the signer himself signed wrong is found: a fact that the manifest does not name, another attestation', async () => {
  const { key, packs } = await fiveDays()
  const [pack, other] = packs
  if (!pack || !other) throw new Error('five days were made')
  const files = new Map(pack.files)
  files.set('extra.json', Buffer.from('{}\n'))
  files.set('attestation.sigstore.json', other.files.get('attestation.sigstore.json') ?? Buffer.from(''))
  await seal(files, key)
  const found = places(await verify(writeDays([{ day: pack.day, files }]), { keys: [key] }))
  expect(found).toContain('2026-10-01 extra.json: is no fact that manifest.json names')
  expect(found).toContain('2026-10-01 attestation.sigstore.json: it attests something else than manifest.json')
})

test('proofs that lead elsewhere are found, even when the signer sealed them', async () => {
  const { key, chain, packs } = await fiveDays()
  const [, pack, other] = packs
  if (!pack || !other) throw new Error('five days were made')
  const text = (from: Pack, name: string) => Buffer.from(from.files.get(name) ?? '').toString()
  const swapped = (name: string) => text(other, name)
  /** The first hash of a proof, exchanged for another hash. */
  const spoilt = (name: string, line: number) =>
    text(pack, name)
      .split('\n')
      .map((content, number) => (number === line ? sha256Base64(content) : content))
      .join('\n')
  for (const [name, content, expected] of [
    ['inclusion.tlog-proof', spoilt('inclusion.tlog-proof', 2), 'is not in the ledger of checkpoint.txt'],
    ['inclusion.tlog-proof', swapped('inclusion.tlog-proof'), 'holds another checkpoint than checkpoint.txt'],
    ['consistency.txt', spoilt('consistency.txt', 4), 'is not the beginning of the one of'],
    ['consistency.txt', swapped('consistency.txt'), 'does not end at checkpoint.txt'],
    ['manifest-row.txt', swapped('manifest-row.txt'), 'the ledger holds another manifest'],
    ['checkpoint.txt', await checkpointNote(chain.ledger, testKey(), pack.checkpointSize), 'it is not signed by'],
  ] as const) {
    const files = new Map(pack.files).set(name, Buffer.from(content))
    await seal(files, key)
    const found = places(await verify(writeDays([{ day: pack.day, files }]), { keys: [key] }))
    expect(found.filter((line) => line.startsWith(`${pack.day} ${name}`)).join()).toContain(expected)
  }
})

function sha256Base64(text: string): string {
  return Buffer.from(sha256Hex(text), 'hex').toString('base64')
}
