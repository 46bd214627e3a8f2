import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bin, build } from '../ui/built.ts'
import { collect, envelopeOf, run, said, start } from '../ui/process.ts'
import { send, tasks, type SigningKey } from './house.ts'

/** The command as people run it: built, as a process, on an embedded database. */
let cwd: string
let env: Record<string, string>
let key: SigningKey

beforeAll(async () => {
  build()
  cwd = await mkdtemp(join(tmpdir(), 'tms-serve-'))
  env = { TMS_KEYS: join(cwd, 'signing'), TMS_COLOR: 'false' }
  const tms = async (...words: string[]) => {
    const { code, stdout, stderr } = await inFolder([...words, '--json'])
    expect([words[0], code, stderr]).toEqual([words[0], 0, ''])
    return envelopeOf(stdout).data
  }
  await tms('init', '--environment', 'development')
  await tms('tenants', 'add', 'acme')
  const { secret } = await tms('accounts', 'rotate', 'n8n', '--kind', 'key', '--name', 'n8n-1')
  key = { id: 'n8n-1', secret: String(secret) }
  await writeFile(join(cwd, 'door.keys'), `n8n-1=${key.secret}\n`, { mode: 0o600 })
})
afterAll(() => rm(cwd, { recursive: true, force: true }))

// A child of beforeAll is no test's, so it isn't `run`.
async function inFolder(words: readonly string[]) {
  const { spawn } = await import('node:child_process')
  const options = { cwd, env: { PATH: process.env.PATH ?? '', HOME: '/nonexistent', ...env } }
  const child = spawn(process.execPath, [bin, ...words], options)
  child.stdin.end()
  return collect(child)
}

const serve = (...words: string[]) => start([bin, 'serve', '--port', '0', ...words], { cwd, env })

async function portOf(child: ReturnType<typeof serve>): Promise<number> {
  let text = ''
  child.stdout.on('data', (part: Buffer) => (text += part.toString()))
  await said(child.stdout, 'http://127.0.0.1:')
  return Number(/http:\/\/127\.0\.0\.1:(\d+)/.exec(text)?.[1])
}

describe('tms serve', () => {
  test('serves until it is told to stop, and its output holds no secret', async () => {
    const child = serve('--keys-file', 'door.keys')
    const ended = collect(child)
    const port = await portOf(child)
    expect((await send({ port }, { method: 'GET', path: '/readyz' })).status).toBe(200)
    // Signed and admitted; no policy is loaded, so no function is allowed.
    const sent = await send({ port }, { body: tasks(), key })
    expect([sent.status, sent.text]).toEqual([403, expect.stringContaining('POLICY_DENIED')])
    expect((await send({ port }, { body: tasks(), key: { ...key, secret: 'z'.repeat(40) } })).status).toBe(401)
    child.kill('SIGTERM')
    const { code, stdout, stderr } = await ended
    expect(code).toBe(143)
    expect(stderr).toMatch(/admitted .*account=n8n signer=n8n-1/)
    expect(stderr).toContain('reason=mismatch')
    expect(stdout + stderr).not.toContain(key.secret)
  })

  test('with --json its log is a stream of objects, and the envelope ends it', async () => {
    const child = start([bin, 'serve', '--port', '0', '--json'], {
      cwd,
      env: { ...env, TMS_DOOR_KEYS: JSON.stringify({ [key.id]: key.secret }) },
    })
    const ended = collect(child)
    const port = await portOf(child)
    await send({ port }, { body: tasks() })
    child.kill('SIGINT')
    const { code, stdout } = await ended
    expect(code).toBe(130)
    const lines = stdout
      .trim()
      .split('\n')
      .map((line): unknown => JSON.parse(line))
    expect(lines[0]).toMatchObject({ keys: 1, replay: true })
    expect(lines).toContainEqual(expect.objectContaining({ message: 'refused', level: 'info' }))
    expect(lines.at(-1)).toMatchObject({ command: 'serve', error: { code: 'INTERRUPTED' } })
    expect(stdout).not.toContain(key.secret)
  })

  test.each([
    ['no keys', [], 'CONFIG_MISSING'],
    ['keys from two places', ['--keys-file', 'door.keys', '--keys-command', 'true'], 'USAGE'],
    ['a host that others reach, without a proxy', ['--keys-file', 'door.keys', '--host', '0.0.0.0'], 'USAGE'],
    ['everybody for a proxy', ['--keys-file', 'door.keys', '--trust-proxy', '0.0.0.0/0'], 'USAGE'],
  ])('%s: nothing is opened, and the exit code is 2', async (_, words, problem) => {
    const { code, stderr } = await run([bin, 'serve', '--port', '0', ...words], { cwd, env })
    expect([code, stderr]).toEqual([2, expect.stringContaining(problem)])
  })
})
