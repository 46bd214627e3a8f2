import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openEmbedded } from '../../src/drivers/embedded/driver.ts'
import type { Driver } from '../../src/drivers/driver.ts'
import { TmsError } from '../../src/errors.ts'
import { exportKeys, generateKey, rotateKey, usableSigner } from '../../src/keys/keys.ts'
import { makePrivateKey, signerOf } from '../../src/keys/private.ts'
import { bin, build } from '../ui/built.ts'
import { collect, run, start } from '../ui/process.ts'
import { freshSources } from './sources.ts'

const rounds = process.env['TMS_TEST_FULL'] === '1' ? 25 : 2

/** A rotation that ends where a kill would end it: before the database hears of it, or before its answer is used. */
function killedAt(driver: Driver, moment: 'before' | 'after'): Driver {
  return {
    ...driver,
    target: driver.target,
    listen: (...args) => driver.listen(...args),
    close: () => driver.close(),
    call: async (fn, args) => {
      if (fn === 'keys_add' && moment === 'before') throw new Error('killed')
      const answer = await driver.call(fn, args)
      if (fn === 'keys_add') throw new Error('killed')
      return answer
    },
  }
}

// each look opens the embedded database anew: seconds each, where the machine has other work
describe('a rotation that is killed', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tms-killed-'))
  const env = { TMS_KEYS: join(folder, 'keys'), XDG_CONFIG_HOME: folder }
  const sources = { keysFolder: env.TMS_KEYS, environment: {} }
  const directory = join(folder, '.tms')
  beforeAll(() => {
    build()
    execFileSync(process.execPath, [bin, 'init', '--yes'], {
      cwd: folder,
      env: { PATH: process.env.PATH, ...env },
      stdio: 'ignore',
    })
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  const withDriver = async <T>(work: (driver: Driver) => Promise<T>): Promise<T> => {
    const driver = await openEmbedded({ driver: 'embedded', directory, create: false, callTimeoutMs: 20_000 })
    try {
      return await work(driver)
    } finally {
      await driver.close()
    }
  }
  const canSign = () =>
    withDriver(async (driver) => {
      const signer = await usableSigner(driver, sources, () => new Date())
      const { keys } = await exportKeys(driver, { all: false })
      expect(signer.fingerprint).toBe(keys[0]?.fingerprint)
      await expect(signer.sign(Buffer.from('x'))).resolves.toHaveLength(64)
    })

  test.each(['before', 'after'] as const)('just %s the database knows leaves a key that signs', async (moment) => {
    const before = await withDriver((driver) => exportKeys(driver, { all: true }))
    await expect(
      withDriver((driver) => rotateKey(killedAt(driver, moment), sources, { days: 400, keep: true, to: null })),
    ).rejects.toThrow('killed')
    expect(readdirSync(sources.keysFolder).some((name) => name.startsWith('next-'))).toBe(true)
    const after = await withDriver((driver) => exportKeys(driver, { all: true }))
    expect(after.keys.length - before.keys.length).toBe(moment === 'before' ? 0 : 1)
    await canSign()
    // and the next one goes on from there
    const { fingerprint } = await withDriver((driver) =>
      rotateKey(driver, sources, { days: 400, keep: false, to: null }),
    )
    expect(signerOf(readFileSync(join(sources.keysFolder, 'signing.pem'), 'utf8'))?.fingerprint).toBe(fingerprint)
    await canSign()
  })

  test(
    'with SIGKILL at any moment leaves a key that signs',
    async () => {
      const began = performance.now()
      expect((await run([bin, 'evidence', 'keys', 'rotate'], { cwd: folder, env })).code).toBe(0)
      const whole = performance.now() - began
      const ends: (number | null)[] = []
      for (let round = 0; round < rounds; round += 1) {
        const child = start([bin, 'evidence', 'keys', 'rotate', '--keep'], { cwd: folder, env })
        const ended = collect(child)
        child.stdin.end()
        // most of the work is in the second half of its time
        const timer = setTimeout(() => child.kill('SIGKILL'), whole * (0.3 + (0.75 * round) / rounds))
        ends.push((await ended).code)
        clearTimeout(timer)
        await canSign()
      }
      expect(ends).toContain(null)
    },
    60_000 + rounds * 15_000,
  )

  test('no command prints the private key, and none of it is in a log', async () => {
    const said: string[] = []
    for (const words of [
      'list',
      'rotate --keep',
      'export --all',
      'generate',
      'revoke 00000000 --why x',
      'list --json',
    ]) {
      const { stdout, stderr } = await run([bin, 'evidence', 'keys', ...words.split(' ')], { cwd: folder, env })
      said.push(stdout, stderr)
    }
    const files = readdirSync(sources.keysFolder).map((name) => readFileSync(join(sources.keysFolder, name), 'utf8'))
    for (const pem of files) expect(said.join('\n')).not.toContain(pem.split('\n')[1])
    expect(files.length).toBeGreaterThan(1)
  })

  test('export prints PEM and nothing else; list says 1 where a key is missing', async () => {
    const { code, stdout } = await run([bin, 'evidence', 'keys', 'export'], { cwd: folder, env })
    expect([code, stdout]).toEqual([
      0,
      expect.stringMatching(/^-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/]{59}=\n-----END PUBLIC KEY-----\n$/),
    ])
    const other = { ...env, TMS_KEYS: join(folder, 'nowhere') }
    expect((await run([bin, 'evidence', 'keys', 'list'], { cwd: folder, env: other })).code).toBe(1)
    const variable = { ...other, TMS_SIGNING_KEY: makePrivateKey() }
    const { stderr, code: refused } = await run([bin, 'evidence', 'keys', 'rotate'], { cwd: folder, env: variable })
    expect([refused, stderr]).toEqual([2, expect.stringContaining('CONFIG_INVALID')])
    expect(stderr).not.toContain(variable.TMS_SIGNING_KEY.split('\n')[1])
  })
})

test('a first key whose registration was refused is removed; one whose fate is unknown stays', async () => {
  const sources = freshSources()
  const answers = (error: TmsError): Driver => ({
    target: { name: 'x', consentName: 'x', shared: false },
    listen: () => Promise.reject(error),
    close: () => Promise.resolve(),
    // True because only these two functions are called.
    call: ((fn: string) =>
      fn === 'keys_list'
        ? Promise.resolve({ now: '2026-11-20T00:00:00.000000Z', announced: null, keys: [] })
        : Promise.reject(error)) as Driver['call'],
  })
  const failed = (code: 'ROLE_DENIED' | 'DB_UNREACHABLE') =>
    answers(new TmsError({ code, what: 'x', why: 'x', next: [] }))
  const usual = { days: 400, register: false }
  await expect(generateKey(failed('ROLE_DENIED'), sources, usual)).rejects.toMatchObject({ code: 'ROLE_DENIED' })
  expect(readdirSync(sources.keysFolder)).toEqual([])
  await expect(generateKey(failed('DB_UNREACHABLE'), sources, usual)).rejects.toMatchObject({ code: 'DB_UNREACHABLE' })
  expect(readdirSync(sources.keysFolder)).toEqual(['signing.pem'])
  rmSync(join(sources.keysFolder, '..'), { recursive: true, force: true })
})
