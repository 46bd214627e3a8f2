import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { packSource } from '../../src/evidence/verify-source.ts'
import { verifyEvidence } from '../../src/evidence/verify.ts'
import { signerOf } from '../../src/keys/private.ts'
import { publicHalf, type PublicHalf } from '../../src/proof/ed25519.ts'
import { bin, build } from '../ui/built.ts'
import { collect, envelopeOf, run, start } from '../ui/process.ts'
import { bytesIn } from './desk.ts'

/** The built command, killed at any moment, on a database and in a folder of its own. */

const kills = process.env.TMS_TEST_FULL === '1' ? 60 : 3

let home: string
let key: PublicHalf
const options = () => ({ cwd: home, env: { HOME: home } })
const days = () => join(home, 'artifacts', 'green-posture')

beforeAll(() => {
  build()
  home = mkdtempSync(join(tmpdir(), 'tms-killed-'))
  execFileSync(process.execPath, [bin, 'init', '--yes', '--environment', 'development'], {
    cwd: home,
    env: { PATH: process.env.PATH, HOME: home },
    stdio: 'pipe',
  })
  const { publicKeyPem = '' } = signerOf(readFileSync(join(home, '.config/tms/keys/signing.pem'), 'utf8')) ?? {}
  key = publicHalf(publicKeyPem)
})
afterAll(() => rmSync(home, { recursive: true, force: true }))

async function broken(): Promise<unknown> {
  const [day, ...more] = readdirSync(days()).filter((name) => /^\d/.test(name))
  if (day === undefined || more.length > 0) return [day, ...more]
  return (await verifyEvidence(await packSource(join(days(), day)), { keys: [key] })).broken
}

test('a build that is killed at any moment leaves the old pack or the new one, and the next build finishes', async () => {
  const began = Date.now()
  const first = await run([bin, 'evidence', 'build', '--json'], options())
  expect(first.code).toBe(3)
  const whole = Date.now() - began
  let last = Number(envelopeOf(first.stdout).data['revision'])
  for (let round = 0; round < kills; round += 1) {
    const child = start([bin, 'evidence', 'build', '--json'], options())
    const ended = collect(child)
    // Most of a build's first half is starting up; what changes something comes late.
    await wait(whole * (0.25 + (0.9 * round) / kills))
    child.kill('SIGKILL')
    await ended
    expect(await broken()).toEqual([])
  }
  const after = await run([bin, 'evidence', 'build', '--json'], options())
  expect([after.code, after.stderr]).toEqual([3, expect.anything()])
  expect(Number(envelopeOf(after.stdout).data['revision'])).toBeGreaterThan(last)
  last = Number(envelopeOf(after.stdout).data['revision'])
  expect(await broken()).toEqual([])
  // Nothing that a killed one had begun lies there any more.
  expect(readdirSync(days())).toEqual([expect.stringMatching(/^\d{4}-\d\d-\d\d$/)])
}, 240_000)

test('two builds at once end with one pack, and both say which', async () => {
  const answers = await Promise.all([1, 2].map(() => run([bin, 'evidence', 'build', '--json'], options())))
  for (const { code, stdout, stderr } of answers)
    expect([code, stdout === '', stderr]).toEqual([3, false, expect.anything()])
  const bytes = bytesIn(join(days(), readdirSync(days())[0] ?? ''))
  const revisions = answers.map(({ stdout }) => Number(envelopeOf(stdout).data['revision']))
  expect(bytes['manifest.json']).toContain(`"revision":${Math.max(...revisions)}`)
  expect(await broken()).toEqual([])
})

test('the exit code and the words are those of the verdict', async () => {
  const { code, stdout, stderr } = await run([bin, 'evidence', 'build'], options())
  expect(code).toBe(3)
  expect(stdout).toMatch(/^UNKNOWN: the pack of \d{4}-\d\d-\d\d/)
  expect(stderr).toContain('NO_DATA')
  const set = await run([bin, 'flags', 'set', 'obs.otelEnabled', 'false', '--why', 'test'], options())
  expect(set.code).toBe(0)
  const red = await run([bin, 'evidence', 'build'], options())
  expect([red.code, red.stdout.slice(0, 4)]).toEqual([1, 'RED:'])
})

test('a schema is printed as a file to be stored', async () => {
  const { code, stdout } = await run([bin, 'evidence', 'schema', 'flags.json'], options())
  expect(code).toBe(0)
  expect(JSON.parse(stdout)).toMatchObject({ $id: 'https://tms.invalid/schemas/tms-flags-v1.json' })
  expect((await run([bin, 'evidence', 'schema'], options())).stdout).toContain('tms-manifest-v1')
  expect((await run([bin, 'evidence', 'schema', 'nothing.json'], options())).code).toBe(2)
})
