import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { beforeAll, expect, test } from 'vitest'
import { openEmbedded } from '../../src/drivers/embedded/driver.ts'
import { daysSource } from '../../src/evidence/verify-source.ts'
import { verifyEvidence } from '../../src/evidence/verify.ts'
import { sha256Hex } from '../../src/proof/bytes.ts'
import { makeEmbedded } from '../servers/schema.ts'
import { bin, build } from '../ui/built.ts'
import { run } from '../ui/process.ts'
import { temporary } from './fixture.ts'
import { checkpointNote, packsOf, startChain, testKey, writePack, type Pack, type TestKey } from './packs.ts'
import { withPacks } from './stored.ts'

/** kill -9 at moments that nobody chose, and what lies there then. */

const full = process.env['TMS_TEST_FULL'] === '1'

beforeAll(() => build())

async function killedAfter(ms: number, words: readonly string[], where: { cwd: string; env: Record<string, string> }) {
  const child = spawn(process.execPath, [bin, ...words], {
    cwd: where.cwd,
    env: { PATH: process.env.PATH ?? '', HOME: where.cwd, ...where.env },
    stdio: 'ignore',
  })
  const ended = once(child, 'close')
  await Promise.race([ended, pause(ms)])
  child.kill('SIGKILL')
  await ended
  return child.exitCode
}

function project(key: TestKey, packs: readonly Pack[]) {
  const folder = temporary()
  mkdirSync(join(folder, 'keys'), { mode: 0o700 })
  writeFileSync(join(folder, 'keys/signing.pem'), key.privatePem, { mode: 0o600 })
  writeFileSync(join(folder, 'key.pem'), key.publicKeyPem)
  writeFileSync(join(folder, 'tms.config.yaml'), 'driver: embedded\n')
  const root = join(folder, 'artifacts/green-posture')
  for (const { day, files } of packs) writePack(join(root, day), files)
  return { folder, root, where: { cwd: folder, env: { TMS_KEYS: join(folder, 'keys') } } }
}

test('an export that is killed leaves the archive of before or the whole new one', { timeout: 300_000 }, async () => {
  const key = testKey()
  const chain = startChain(key)
  const packs = await packsOf(chain, '2026-10-01', 8, key)
  const { folder, where } = project(key, packs)
  const words = [
    'evidence',
    'export',
    '--from',
    '2026-10-01',
    '--to',
    '2026-10-08',
    '--key',
    'key.pem',
    '--out',
    'x.tar.gz',
  ]
  expect(await run([bin, ...words], where)).toMatchObject({ code: 0, stderr: '' })
  const fresh = sha256Hex(readFileSync(join(folder, 'x.tar.gz')))
  writeFileSync(join(folder, 'x.tar.gz'), 'the archive of before')
  const before = sha256Hex('the archive of before')
  for (let round = 0; round < (full ? 60 : 3); round += 1) {
    await killedAfter(100 + Math.random() * 900, words, where)
    expect([before, fresh]).toContain(sha256Hex(readFileSync(join(folder, 'x.tar.gz'))))
  }
  expect(await run([bin, ...words], where)).toMatchObject({ code: 0, stderr: '' })
  expect(sha256Hex(readFileSync(join(folder, 'x.tar.gz')))).toBe(fresh)
})

test(
  'a prune that is killed leaves each day whole or with its tombstone, and the next one ends it',
  { timeout: 300_000 },
  async () => {
    const key = testKey({ notBefore: '2019-01-01T00:00:00.000000Z' })
    const chain = startChain(key)
    const packs = await packsOf(chain, '2020-01-01', 12, key)
    const { folder, root, where } = project(key, packs)
    const directory = join(folder, '.tms')
    await makeEmbedded(directory)
    const driver = await openEmbedded(
      { driver: 'embedded', directory, create: false, callTimeoutMs: 20_000 },
      { localUser: process.env.USER ?? 'operator' },
    )
    await withPacks(
      async (text, parameters) => [
        ...((await driver.administration?.transaction((sql) => sql(text, parameters))) ?? []),
      ],
      key,
      packs,
    )
    await driver.close()

    const checkpoint = { name: 'kept.txt', note: await checkpointNote(chain.ledger, key), since: null }
    const range = { from: '2020-01-01', to: '2020-01-12' }
    const words = ['evidence', 'prune', '--confirm', 'keep-35']
    for (let round = 0; round < (full ? 40 : 3); round += 1) {
      const code = await killedAfter(300 + Math.random() * 1500, words, where)
      const found = await verifyEvidence(await daysSource(root), { keys: [key], checkpoint, range })
      expect([round, found.broken, found.verdict]).toEqual([round, [], 'verified'])
      if (code === 0) break
    }
    // Whether somebody is still writing a tombstone, only its age tells.
    for (const name of readdirSync(root)) if (name.endsWith('.tmp')) utimesSync(join(root, name), 0, 0)
    expect(await run([bin, ...words], where)).toMatchObject({ code: 0, stderr: '' })
    expect(readdirSync(root).sort()).toEqual(['2020-01-12', 'tombstones'])
    expect(existsSync(join(root, 'tombstones/2020-01-11.json'))).toBe(true)
  },
)
