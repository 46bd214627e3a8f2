import { randomUUID } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  watch,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { planPrune, prune, settleEvidence } from '../../src/evidence/prune.ts'
import { daysSource } from '../../src/evidence/verify-source.ts'
import { verifyEvidence } from '../../src/evidence/verify.ts'
import { sha256Hex } from '../../src/proof/bytes.ts'
import { embeddedSubject, postgresSubject, supabaseSubject, type Subject } from '../contract/subjects.ts'
import { until } from '../servers/process.ts'
import { build } from '../ui/built.ts'
import { writeDays } from './fixture.ts'
import { checkpointNote, packsOf, startChain, testKey, tombstoneOf, writePack, type Chain, type Pack } from './packs.ts'
import { insertPacks, withPacks } from './stored.ts'

const self = { host: '00000000', pid: 1, alive: () => false }
const key = testKey({ notBefore: '2019-01-01T00:00:00.000000Z' })
let chain: Chain
let packs: Pack[]
let kept: string

beforeAll(async () => {
  build()
  chain = startChain(key)
  packs = await packsOf(chain, '2020-01-01', 5, key)
  kept = await checkpointNote(chain.ledger, key)
})

for (const make of [embeddedSubject, postgresSubject, supabaseSubject]) {
  describe(`prune, ${make.name}`, () => {
    let subject: Subject
    let driver: Driver

    beforeAll(async () => {
      subject = await make()
      await withPacks((text, parameters) => subject.sql(text, parameters), key, packs)
      driver = await subject.operator()
    })
    afterAll(async () => {
      await driver.close()
      await subject.stop()
    })

    /** An embedded database has one owner: looking behind the contract needs it alone. */
    const behind = async <T>(look: () => Promise<T>): Promise<T> => {
      await driver.close()
      try {
        return await look()
      } finally {
        driver = await subject.operator()
      }
    }
    const signer = () => Promise.resolve(key)
    const plan = (root: string, keep = 35) => planPrune({ driver, root, keep })
    const go = async (root: string) => prune({ driver, root, keep: 35, plan: await plan(root), signer })

    test('expired days leave a tombstone that verifies, in the folder, the database and the ledger; the newest stays', async () => {
      const root = writeDays(packs)
      const { pruned, stay } = await go(root)
      expect(stay).toEqual([])
      expect(pruned).toEqual(['2020-01-01', '2020-01-02', '2020-01-03', '2020-01-04'])
      expect(readdirSync(root).sort()).toEqual(['2020-01-05', 'tombstones'])
      const checkpoint = { name: 'kept.txt', note: kept, since: null }
      const found = await verifyEvidence(await daysSource(root), { keys: [key], checkpoint })
      expect(found.broken).toEqual([])
      expect(found.days.map(({ kind, verdict }) => `${kind} ${verdict}`)).toEqual([
        ...Array.from({ length: 4 }, () => 'tombstone verified'),
        'pack verified',
      ])
      const rows = await behind(() =>
        subject.sql(
          `select subject, body::jsonb ->> 'tombstone_sha256' as digest from tms.ledger_inbox where action = 'evidence.tombstone' order by subject`,
        ),
      )
      expect(rows).toEqual(
        pruned.map((day) => ({ subject: day, digest: sha256Hex(readFileSync(join(root, `tombstones/${day}.json`))) })),
      )
      expect(await go(root)).toMatchObject({ pruned: [], stay: [] })
    })

    test('nothing but tombstones ever lies among them: whoever verifies takes each file there for one', async () => {
      const root = writeDays(packs)
      const graves = join(root, 'tombstones')
      mkdirSync(graves)
      const seen = new Set<string | null>()
      const watcher = watch(graves, (_, name) => void seen.add(name))
      await go(root)
      await until('the last one was seen', () => seen.has('2020-01-04.json'))
      watcher.close()
      expect([...seen].sort()).toEqual(['2020-01-01.json', '2020-01-02.json', '2020-01-03.json', '2020-01-04.json'])
    })

    test('on another machine the same tombstones are written, byte for byte', async () => {
      const roots = [writeDays(packs), writeDays(packs)]
      const [one, two] = await Promise.all(
        roots.map(async (root) => {
          await go(root)
          return readFileSync(join(root, 'tombstones/2020-01-02.json'), 'utf8')
        }),
      )
      expect(one).toBe(two)
    })

    test('a pack that does not verify, or is not the one of this database, is left and named', async () => {
      const root = writeDays(packs)
      writeFileSync(join(root, '2020-01-02/flags.json'), '{}\n')
      const other = await packsOf(startChain(key), '2020-01-03', 1, key)
      rmSync(join(root, '2020-01-03'), { recursive: true })
      for (const { day, files } of other) writePack(join(root, day), files)
      const { pruned, stay } = await go(root)
      expect(pruned).not.toContain('2020-01-02')
      expect(stay.map(({ day }) => day)).toEqual(expect.arrayContaining(['2020-01-02', '2020-01-03']))
      expect(existsSync(join(root, '2020-01-02/flags.json'))).toBe(true)
      expect(existsSync(join(root, '2020-01-03/flags.json'))).toBe(true)
    })

    test('a stored tombstone that is none deletes nothing', async () => {
      const later = await packsOf({ ...chain, last: null }, '2019-12-30', 1, key)
      await behind(() => insertPacks((text, parameters) => subject.sql(text, parameters), later))
      const [pack] = later
      if (!pack) throw new Error('a day was made')
      granted(
        await driver.call('evidence_tombstone', {
          request_id: randomUUID(),
          keep: 35,
          day: pack.day,
          manifest_sha256: sha256Hex(pack.files.get('manifest.json') ?? ''),
          sums_sha256: sha256Hex(pack.files.get('SHA256SUMS') ?? ''),
          tombstone: await tombstoneOf(chain, pack, testKey(), '2026-11-10T00:00:00.000000Z'),
        }),
      )
      const root = writeDays(later)
      const { pruned, stay } = await go(root)
      expect([pruned, stay]).toEqual([
        [],
        [{ day: '2019-12-30', why: 'the tombstone that is stored is by no key of this database' }],
      ])
      expect(existsSync(join(root, '2019-12-30/manifest.json'))).toBe(true)
    })

    test('the database refuses a tombstone of the newest final pack, of a day that is kept, and of another digest', async () => {
      const ask = async (pack: Pack | undefined, keep: number, digest?: string) =>
        driver.call('evidence_tombstone', {
          request_id: randomUUID(),
          keep,
          day: pack?.day ?? '',
          manifest_sha256: digest ?? sha256Hex(pack?.files.get('manifest.json') ?? ''),
          sums_sha256: sha256Hex(pack?.files.get('SHA256SUMS') ?? ''),
          tombstone: '{}\n',
        })
      const young = await packsOf({ ...chain, last: null }, '2019-12-20', 1, key)
      await behind(() => insertPacks((text, parameters) => subject.sql(text, parameters), young))
      expect(await ask(packs[4], 35)).toMatchObject({ refused: { code: 'CONFLICT' } })
      expect(await ask(young[0], 9999)).toMatchObject({ refused: { code: 'CONFLICT' } })
      expect(await ask(young[0], 35, '0'.repeat(64))).toMatchObject({ refused: { code: 'CONFLICT' } })
      await expect(behind(() => subject.sql(`update tms.evidence_tombstones set tombstone = '{}'`))).rejects.toThrow(
        'append-only',
      )
    })

    test('wherever a run was killed, each day is there whole or has its tombstone, and the next run ends it', async () => {
      // the states between the steps: nothing, tombstone beside the pack, pack stepped aside, half deleted
      for (const [died, state] of [
        ['after the tombstone was stored', () => undefined],
        [
          'while it was written',
          (root: string) => {
            const half = join(root, '2020-01-02.json.0123456789ab.tmp')
            writeFileSync(half, '{"media')
            // Nobody can still be at it.
            utimesSync(half, 0, 0)
          },
        ],
        ['after it was written', (root: string, grave: Grave) => grave(root)],
        [
          'after the pack stepped aside',
          (root: string, grave: Grave) => {
            grave(root)
            renameSync(join(root, '2020-01-02'), join(root, '.expired-2020-01-02'))
          },
        ],
        [
          'while it was deleted',
          (root: string, grave: Grave) => {
            grave(root)
            renameSync(join(root, '2020-01-02'), join(root, '.expired-2020-01-02'))
            rmSync(join(root, '.expired-2020-01-02/manifest.json'))
          },
        ],
      ] as const) {
        const whole = writeDays(packs)
        await go(whole)
        const root = writeDays(packs)
        state(root, (folder) => {
          mkdirSync(join(folder, 'tombstones'))
          const text = readFileSync(join(whole, 'tombstones/2020-01-02.json'))
          writeFileSync(join(folder, 'tombstones/2020-01-02.json'), text)
        })
        const between = await verifyEvidence(await daysSource(root), { keys: [key] })
        expect([died, between.broken]).toEqual([died, []])
        await settleEvidence(root, self)
        await go(root)
        expect([died, readdirSync(root).sort()]).toEqual([died, ['2020-01-05', 'tombstones']])
      }
    })
  })
}

/** Puts the stored tombstone of 2020-01-02 beside the packs. */
type Grave = (folder: string) => void
