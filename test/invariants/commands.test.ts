import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openEmbedded } from '../../src/drivers/embedded/driver.ts'
import { bin, build } from '../ui/built.ts'
import { envelopeOf, root, run } from '../ui/process.ts'

/** The commands as a shell runs them, in a folder that is the example's. */

let folder: string
const tms = (...args: string[]) =>
  run([bin, ...args], { cwd: folder, env: { HOME: folder, TMS_CONFIG: '', NO_COLOR: '1' } })

async function sql(text: string): Promise<void> {
  const driver = await openEmbedded({
    driver: 'embedded',
    directory: join(folder, '.tms'),
    create: false,
    callTimeoutMs: 20_000,
  })
  try {
    await driver.administration?.transaction((go) => go(text))
  } finally {
    await driver.close()
  }
}

beforeAll(async () => {
  build()
  folder = await mkdtemp(join(tmpdir(), 'tms-retail-'))
  await cp(join(root, 'examples/retail'), folder, { recursive: true })
})
afterAll(() => rm(folder, { recursive: true, force: true }))

describe('tms invariants', () => {
  test('what can not be loaded is told by init and unknown: exit 3', async () => {
    const made = await tms('init', '--yes', '--json', '--keys', join(folder, 'keys'))
    expect(made.code, made.stderr + made.stdout).toBe(0)
    // The shop isn't there yet: its policies can't be built, and init says so and goes on.
    expect(envelopeOf(made.stdout).warnings.join('\n')).toContain('NO_NEGATIVE_STOCK')
    const { code, stdout } = await tms('invariants', 'scan', '--id', 'NO_NEGATIVE_STOCK', '--json')
    expect(code).toBe(3)
    expect(envelopeOf(stdout)).toMatchObject({ ok: false, error: { code: 'NO_DATA' } })
  })

  test('load, scan, show and history tell the whole story', async () => {
    await sql(await readFile(join(folder, 'schema.sql'), 'utf8'))
    const loaded = await tms('invariants', 'load', '--json')
    expect(loaded.code, loaded.stderr).toBe(0)
    // Only the shop's: whether the ledger is sealed depends on who else runs here.
    const ids = ['--id', 'NO_NEGATIVE_STOCK,NO_ORPHANED_SALE_ITEMS']
    const held = await tms('invariants', 'scan', ...ids)
    expect(held.code, held.stdout + held.stderr).toBe(0)
    await sql(`insert into retail.sale_items values (1, 99, 'tea', 1, 2.50, now() - interval '2 hours')`)
    const violated = await tms('invariants', 'scan', ...ids)
    expect([violated.code, violated.stdout]).toEqual([1, expect.stringContaining('VIOLATED 1') as unknown])
    const shown = await tms('invariants', 'show', 'NO_ORPHANED_SALE_ITEMS')
    expect(shown.stdout).toContain('delete from retail.sale_items')
    expect(shown.stdout).toContain('item 1, sale 99')
    const mended = await tms('invariants', 'scan', '--id', 'NO_ORPHANED_SALE_ITEMS', '--correct', '--json')
    expect([mended.code, envelopeOf(mended.stdout).data['checks']]).toMatchObject([0, [{ correction: { touched: 1 } }]])
    const history = await tms('invariants', 'history', '--id', 'NO_ORPHANED_SALE_ITEMS')
    expect(history.stdout).toContain('corrected')
    const list = await tms('invariants', 'list', '--json')
    expect(envelopeOf(list.stdout).data['invariants']).toHaveLength(18)
  })

  test('a misspelt invariant is told the right one: exit 2', async () => {
    const { code, stderr } = await tms('invariants', 'show', 'NO_NEGATIV_STOCK')
    expect(code).toBe(2)
    expect(stderr).toContain('Did you mean NO_NEGATIVE_STOCK?')
  })

  test('a broken file is told with its line, and the others are loaded: exit 2', async () => {
    const path = join(folder, 'policies/invariants/NO_NEGATIVE_STOCK.yaml')
    const text = await readFile(path, 'utf8')
    await writeFile(path, text.replace('P1', 'P9'))
    const { code, stdout, stderr } = await tms('invariants', 'load')
    await writeFile(path, text)
    expect([code, stdout]).toEqual([2, expect.stringContaining('priority: takes P1, P2, P3 or P4') as unknown])
    expect(stderr).toContain('NO_NEGATIVE_STOCK.yaml')
    expect((await tms('invariants', 'load')).code).toBe(0)
  })

  test('from the wrong folder nothing is removed, and what a person took out of theirs needs consent', async () => {
    const here = { HOME: folder, TMS_CONFIG: '', NO_COLOR: '1' }
    const load = (policies: string, ...more: string[]) =>
      run([bin, 'invariants', 'load', '--json', ...more], { cwd: folder, env: { ...here, TMS_POLICIES: policies } })
    const wrong = await load('elsewhere')
    expect([wrong.code, envelopeOf(wrong.stdout).error]).toMatchObject([
      2,
      { code: 'POLICY_INVALID', message: expect.stringContaining('NO_NEGATIVE_STOCK') as unknown },
    ])
    const pushed = await run([bin, 'db', 'push', '--json'], {
      cwd: folder,
      env: { ...here, TMS_POLICIES: 'elsewhere' },
    })
    expect([pushed.code, envelopeOf(pushed.stdout).warnings.join()]).toEqual([
      0,
      expect.stringContaining('that no file names stay'),
    ])
    await cp(join(folder, 'policies'), join(folder, 'fewer'), { recursive: true })
    await rm(join(folder, 'fewer/invariants/NO_NEGATIVE_STOCK.yaml'))
    const asked = await load('fewer')
    expect([asked.code, envelopeOf(asked.stdout).error]).toMatchObject([4, { code: 'CONSENT_MISSING' }])
    expect(envelopeOf((await tms('invariants', 'list', '--json')).stdout).data['invariants']).toHaveLength(18)
    const name = /--confirm (\S+)"/.exec(asked.stdout)?.[1] ?? ''
    expect(name).toMatch(/.@NO_NEGATIVE_STOCK$/)
    const done = await load('fewer', '--confirm', name)
    expect([done.code, envelopeOf(done.stdout).data['removed']]).toEqual([0, ['NO_NEGATIVE_STOCK']])
    expect((await tms('invariants', 'load')).code).toBe(0)
  })

  test('--print shows SQL and needs no database', async () => {
    const elsewhere = await mkdtemp(join(tmpdir(), 'tms-print-'))
    try {
      await cp(join(root, 'examples/retail/policies'), join(elsewhere, 'policies'), { recursive: true })
      const { code, stdout } = await run([bin, 'invariants', 'load', '--print', '--json'], {
        cwd: elsewhere,
        env: { HOME: elsewhere },
      })
      expect(code).toBe(0)
      // one line of JSON, of which the data is the script
      expect((JSON.parse(stdout) as { data: string }).data).toMatch(/^begin;\n[\s\S]*tms_invariants[\s\S]*commit;\n$/)
    } finally {
      await rm(elsewhere, { recursive: true, force: true })
    }
  })
})
