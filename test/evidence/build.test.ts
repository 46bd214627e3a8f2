import { createHash, randomUUID } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import * as z from 'zod'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { TmsError } from '../../src/errors.ts'
import { buildPack, builtUnknown } from '../../src/evidence/build.ts'
import { publishedNames, schemaOf } from '../../src/evidence/schemas/published.ts'
import { subjects } from '../contract/subjects.ts'
import { bytesIn, jsonIn, readyDesk, type Desk } from './desk.ts'

const rounds = process.env.TMS_TEST_FULL === '1' ? 20 : 3

describe.each(Object.entries(subjects))('building packs on %s', (name, start) => {
  let desk: Desk
  beforeAll(async () => {
    desk = await readyDesk(await start())
  })
  afterAll(async () => desk.stop())
  afterEach(async () => {
    desk.notes.length = 0
  })

  test('today gets a provisional pack that verifies, and the next build another revision', async () => {
    const first = await desk.build()
    expect(first).toMatchObject({ revision: 1, final: false, written: 'written', by: 'this run', verdict: 'unknown' })
    const again = await desk.build()
    expect(again).toMatchObject({ revision: 2, final: false })
    expect(readdirSync(desk.root)).toEqual([again.day])
    const found = await desk.verify(again.folder)
    expect(found.broken).toEqual([])
    expect(found.verdict).toBe('unanchored')
  })

  test('each JSON file is of its published schema', async () => {
    const { folder } = await desk.build()
    for (const file of publishedNames) {
      const answer = z.fromJSONSchema(schemaOf(file).schema).safeParse(jsonIn(folder, file))
      expect(answer.error?.issues ?? [], file).toEqual([])
    }
  })

  test('controls.json names no check that the posture does not make', async () => {
    const { folder } = await desk.build()
    const made = jsonIn(folder, 'slo_snapshot.json')['checks'] as { name: string }[]
    const criteria = jsonIn(folder, 'controls.json')['criteria'] as { facts: { fact: string }[] }[]
    const named = criteria.flatMap(({ facts }) => facts.flatMap(({ fact }) => fact.split('checks, ').slice(1)))
    expect(named.filter((check) => !made.some((other) => other.name === check))).toEqual([])
  })

  test('a day that has not come, and one before the database, are said to be so', async () => {
    for (const [day, what] of [
      ['2999-01-01', /has not come yet/],
      ['2001-01-01', /knows nothing of 2001-01-01/],
      ['yesterday', /knows nothing of/],
      ['2026-02-30', /is no day/],
      ['tomorrow', /is no day/],
    ] as const) {
      const error: unknown = await desk.build({ day, root: join(desk.root, 'none') }).catch((thrown: unknown) => thrown)
      expect(error).toBeInstanceOf(TmsError)
      expect(error).toMatchObject({ exit: 2, message: expect.stringMatching(what) as unknown })
    }
  })

  test('without a key nothing is written, and the command to make one is named', async () => {
    const { folder: root } = { folder: desk.folder() }
    const { usableSigner } = await import('../../src/keys/keys.ts')
    const signer = () => usableSigner(desk.driver, { keysFolder: '/nonexistent', environment: {} }, () => new Date())
    const error: unknown = await desk.build({ root, signer }).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ exit: 2, next: expect.arrayContaining(['tms evidence keys generate']) as unknown })
    expect(readdirSync(root)).toEqual([])
  })

  test('a build that ends after any of its steps is ended by the next one: one final pack, and it verifies', async () => {
    // Days further on, one for each place to break.
    for (let after = 0, done = false; !done; after += name === 'postgres' ? 1 : 4) {
      const root = desk.folder()
      const calls: string[] = []
      const driver: Driver = {
        ...desk.driver,
        target: desk.driver.target,
        call: async (fn, args, options) => {
          const answer = await desk.driver.call(fn, args, options)
          calls.push(fn)
          // The database did it, and nobody heard of it.
          if (calls.length > after) throw new Error('killed')
          return answer
        },
      }
      const broken = await buildPack(desk.input({ driver, root })).then(
        () => false,
        (error: unknown) => String(error).includes('killed'),
      )
      done = !broken
      const built = await desk.build({ root })
      const found = await desk.verify(built.folder)
      expect([after, found.broken]).toEqual([after, []])
      expect(readdirSync(root)).toEqual([built.day])
      if (after > 60) throw new Error(`still not done after ${calls.join(' ')}`)
    }
    const [{ waiting } = { waiting: null }] = await desk.sql(
      `select count(*)::int as waiting from tms.evidence_cuts c
        where not exists (select from tms.evidence_packs p where p.day = c.day and p.revision = c.revision)`,
    )
    expect(waiting).toBe(0)
  })

  test('the database keeps no pack whose files and digests differ, none of a day that was never cut, and changes none', async () => {
    const { day } = await desk.build()
    const { next_revision: revision } = granted(await desk.driver.call('evidence_state', { day }))
    const manifest = jsonIn(join(desk.root, day), 'manifest.json')
    const cut = (change: object, files: Record<string, string> = {}) =>
      desk.driver.call('evidence_cut', {
        request_id: randomUUID(),
        day,
        manifest: JSON.stringify({ ...manifest, revision, files: {}, ...change }),
        files,
      })
    const store = (at: number, files: Record<string, string>) =>
      desk.driver.call('evidence_store', {
        request_id: randomUUID(),
        day,
        revision: at,
        files,
        signature: `${'A'.repeat(86)}==`,
      })
    const wrong = { code: 'INPUT_INVALID' }
    await expect(cut({ files: { 'flags.json': 'ab'.repeat(32) } }, { 'flags.json': '{}' })).rejects.toMatchObject(wrong)
    await expect(cut({}, { 'flags.json': '{}' })).rejects.toMatchObject(wrong)
    await expect(cut({ final: true })).rejects.toMatchObject(wrong)
    await expect(cut({ ledger: { from_seq: 0, tree_size: 99_999_999 } })).rejects.toMatchObject(wrong)
    await expect(store(777, {})).rejects.toMatchObject(wrong)
    expect(await cut({ key: 'ef'.repeat(32) })).toMatchObject({ refused: { code: 'CONFIG_INVALID' } })
    expect(await cut({ revision: revision + 1 })).toMatchObject({ outcome: 'revision' })
    expect(await cut({ previous: { day: '2026-01-01', manifest_sha256: 'ab'.repeat(32) } })).toMatchObject({
      outcome: 'revision',
    })
    // Seven files that nobody can read: of another release, or of somebody who only may build.
    const nonsense = Object.fromEntries(Object.keys(manifest['files'] as object).map((file) => [file, 'nonsense']))
    const digests = Object.fromEntries(
      Object.entries(nonsense).map(([file, text]) => [file, createHash('sha256').update(text).digest('hex')]),
    )
    expect(await cut({ files: digests }, nonsense)).toMatchObject({ outcome: 'cut' })
    await expect(store(revision, { SHA256SUMS: 'of other files\n' })).rejects.toMatchObject(wrong)
    // It stands in nobody's way.
    expect(await desk.build()).toMatchObject({ revision: revision + 1 })
    for (const table of ['evidence_cuts', 'evidence_packs']) {
      for (const statement of [
        `update tms.${table} set final = true`,
        `delete from tms.${table}`,
        `truncate tms.${table}`,
      ]) {
        await expect(desk.sql(statement)).rejects.toThrow()
      }
    }
  })

  test('an unreadable database leaves no folder and nothing that looks like a result', async () => {
    const root = desk.folder()
    const away = new TmsError({ code: 'DB_UNREACHABLE', what: 'away', why: '', next: [] })
    for (const dead of ['evidence_state', 'evidence_facts', 'posture_facts', 'evidence_cut']) {
      const driver: Driver = {
        ...desk.driver,
        target: desk.driver.target,
        call: (fn, args, options) => (fn === dead ? Promise.reject(away) : desk.driver.call(fn, args, options)),
      }
      await expect(desk.build({ driver, root })).rejects.toMatchObject({ exit: 3 })
      expect(readdirSync(root)).toEqual([])
    }
  })

  test('an unknown day is written and said to be unknown', async () => {
    const built = await desk.build()
    expect(builtUnknown(built)).toMatchObject({ code: 'NO_DATA' })
  })

  describe('a day that is over', () => {
    let day: string
    beforeAll(async () => {
      day = (await desk.build()).day
      await desk.clock('1 day')
    })
    afterAll(() => desk.clock('0'))

    test('gets its final pack, once; built again elsewhere, in another time zone and after more data, it has the same bytes', async () => {
      const built = await desk.build({ day })
      expect(built).toMatchObject({ day, final: true, by: 'this run' })
      const bytes = bytesIn(built.folder)
      await desk.fleet.set('obs.otelEnabled', false)
      await desk.fleet.set('obs.otelEnabled', true)
      const zone = process.env.TZ
      process.env.TZ = 'Asia/Kolkata'
      try {
        const again = await desk.build({
          day: 'yesterday',
          root: join(desk.folder(), 'other'),
          // Nothing is to be signed any more, and nothing to be judged.
          signer: () => Promise.reject(new Error('signed again')),
          judge: () => Promise.reject(new Error('judged again')),
        })
        expect(again).toMatchObject({ by: 'an earlier run', written: 'written', revision: built.revision })
        expect(bytesIn(again.folder)).toEqual(bytes)
      } finally {
        if (zone === undefined) delete process.env.TZ
        else process.env.TZ = zone
      }
      expect(await desk.build({ day })).toMatchObject({ written: 'same' })
    })

    test('says in its flags how they stood at its end, and not later', async () => {
      const flags = jsonIn(join(desk.root, day), 'flags.json')['flags'] as { key: string; value: unknown }[]
      expect(flags.find(({ key }) => key === 'obs.otelEnabled')?.value).toBe(true)
    })

    test('what somebody changed in its folder is put right by the next build', async () => {
      const before = bytesIn(join(desk.root, day))
      const { writeFileSync, rmSync } = await import('node:fs')
      writeFileSync(join(desk.root, day, 'manifest.json'), '{"revision":99999}')
      rmSync(join(desk.root, day, 'flags.json'))
      expect(await desk.build({ day })).toMatchObject({ written: 'written' })
      expect(bytesIn(join(desk.root, day))).toEqual(before)
    })
  })

  test('two builders at once have one pack between them, and one of them says so', async () => {
    const others = await Promise.all([desk.fleet.subject.operator(), desk.fleet.subject.operator()])
    try {
      for (let round = 0; round < (name === 'postgres' ? rounds : 2); round += 1) {
        await desk.clock(`${round + 2} days`)
        const roots = [desk.folder(), desk.folder()]
        const notes: string[] = []
        const day = new Date(Date.now() + (round + 1) * 86_400_000).toISOString().slice(0, 10)
        // What the posture measures is of real time; these days are not.
        const { redJudgement } = await import('./day.ts')
        const built = await Promise.all(
          others.map((driver, n) =>
            buildPack(
              desk.input({
                driver,
                root: roots[n] ?? '',
                day,
                note: (text) => notes.push(text),
                judge: async () => redJudgement,
              }),
            ),
          ),
        )
        expect(built.map(({ final }) => final)).toEqual([true, true])
        expect(bytesIn(built[0]?.folder ?? '')).toEqual(bytesIn(built[1]?.folder ?? ''))
        expect(built.filter(({ by }) => by === 'this run').length).toBeLessThanOrEqual(1)
        const rows = await desk.sql(`select count(*)::int as n from tms.evidence_packs where day = '${day}' and final`)
        expect(rows).toEqual([{ n: 1 }])
        if (built.some(({ by }) => by === 'another run')) expect(notes.join()).toMatch(/another run/)
      }
    } finally {
      await desk.clock('0')
      await Promise.all(others.map((driver) => driver.close()))
    }
  })
})
