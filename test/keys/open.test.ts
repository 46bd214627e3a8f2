import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { resolveSettings } from '../../src/config/resolve.ts'
import { showSettings } from '../../src/config/show.ts'
import { signerSources } from '../../src/config/signing.ts'
import { TmsError } from '../../src/errors.ts'
import { openSigner } from '../../src/keys/open.ts'
import { makePrivateKey, signerOf } from '../../src/keys/private.ts'
import { verifySignature } from '../../src/proof/ed25519.ts'

const folder = mkdtempSync(join(tmpdir(), 'tms-signer-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const pem = makePrivateKey()
const half = signerOf(pem)
if (!half) throw new Error('no key was made')
const { fingerprint, publicKeyPem } = half
const keysFolder = join(folder, 'keys')
const environment = { PATH: process.env.PATH }
const bytes = Buffer.from('bytes with a \0 and a newline\n')

/** A signing program: a script for node, with what it does at its end. */
let programs = 0
function program(body: string, timeoutMs?: number) {
  const path = join(folder, `program-${(programs += 1)}.mjs`)
  writeFileSync(
    path,
    `import { sign } from 'node:crypto'
     const key = ${JSON.stringify(pem)}
     const parts = []
     for await (const part of process.stdin) parts.push(part)
     const signature = sign(null, Buffer.concat(parts), key)
     ${body}`,
  )
  const command = { command: [process.execPath, path, 'an argument; with $(blanks)'], publicKey: publicKeyPem }
  return openSigner({
    keysFolder,
    environment,
    command: { ...command, ...(timeoutMs === undefined ? {} : { timeoutMs }) },
  })
}

async function failureOf(work: Promise<unknown>): Promise<TmsError> {
  const error: unknown = await work.then(
    () => new Error('it did not fail'),
    (thrown: unknown) => thrown,
  )
  if (!(error instanceof TmsError)) throw error
  return error
}

describe('a program that signs', () => {
  test.each([
    ['64 raw bytes', 'process.stdout.write(signature)'],
    ['base64', `process.stdout.write(signature.toString('base64'))`],
    ['base64 and a newline', `console.log(signature.toString('base64'))`],
    ['what it must, and talks on stderr', `console.error('hello'); process.stdout.write(signature)`],
  ])('gives %s', async (_, body) => {
    const signer = await program(body)
    if (!signer) throw new Error('no signer')
    expect(signer.fingerprint).toBe(fingerprint)
    expect(verifySignature(signer, bytes, await signer.sign(bytes))).toBe(true)
    expect(verifySignature(signer, Buffer.alloc(0), await signer.sign(Buffer.alloc(0)))).toBe(true)
  })

  test('gets its arguments as they are: no shell', async () => {
    const signer = await program(
      `if (process.argv[2] !== 'an argument; with $(blanks)') process.exit(9); process.stdout.write(signature)`,
    )
    await expect(signer?.sign(bytes)).resolves.toHaveLength(64)
  })

  test('does not see TMS_SIGNING_KEY', async () => {
    const path = join(folder, 'looks.mjs')
    writeFileSync(path, `process.exit('TMS_SIGNING_KEY' in process.env ? 9 : 8)`)
    const command = { command: [process.execPath, path], publicKey: publicKeyPem }
    const signer = await openSigner({ keysFolder, environment: { ...environment, TMS_SIGNING_KEY: '' }, command })
    expect((await failureOf(signer?.sign(bytes) ?? Promise.resolve())).why).toContain('ended with 8')
  })

  test.each([
    ['another key', `process.stdout.write(sign(null, Buffer.from('x'), key))`, 'does not verify'],
    ['nothing', '', 'neither 64 bytes'],
    ['63 bytes', 'process.stdout.write(signature.subarray(1))', 'neither 64 bytes'],
    ['base64 that is none', `process.stdout.write(signature.toString('base64url'))`, 'neither 64 bytes'],
    ['a signature and more', 'process.stdout.write(signature); process.stdout.write("x")', 'neither 64 bytes'],
    ['no end of output', 'setInterval(() => process.stdout.write(Buffer.alloc(9999)), 1)', 'more than a signature'],
    ['a code', 'process.stdout.write(signature, () => process.exit(3))', 'ended with 3'],
    ['a signal', `process.kill(process.pid, 'SIGTERM'); setInterval(() => undefined, 1000)`, 'ended with SIGTERM'],
  ])('that gives %s made no signature', async (_, body, why) => {
    const error = await failureOf((await program(body))?.sign(bytes) ?? Promise.resolve())
    expect([error.code, error.exit]).toEqual(['TOOL_FAILED', 3])
    expect(error.why).toContain(why)
  })

  test('that does not end is ended', async () => {
    const error = await failureOf(
      (await program('setInterval(() => undefined, 1000)', 300))?.sign(bytes) ?? Promise.resolve(),
    )
    expect(error.why).toContain('did not answer within 0.3 s')
  })

  test('that is not there is named', async () => {
    const command = { command: ['/nonexistent/kms-sign', '--pin', '4711-secret'], publicKey: publicKeyPem }
    const signer = await openSigner({ keysFolder, environment, command })
    const error = await failureOf(signer?.sign(bytes) ?? Promise.resolve())
    expect([error.code, error.message]).toEqual([
      'TOOL_FAILED',
      'the signing program /nonexistent/kms-sign made no signature',
    ])
    expect(`${error.why} ${error.next.join(' ')}`).not.toContain('4711')
  })

  test('what it says on stderr is printed redacted, and the key never', async () => {
    const body = `console.error('password=hunter2hunter2 for ann@acme.example'); console.error(key); process.exit(1)`
    const error = await failureOf((await program(body))?.sign(bytes) ?? Promise.resolve())
    const said = `${error.message} ${error.why} ${error.stack ?? ''}`
    expect(said).not.toMatch(/hunter2|ann@acme/)
    expect(said).not.toContain(pem.split('\n')[1])
  })

  test('needs its public half: PEM or a file with it', async () => {
    const path = join(folder, 'public.pem')
    writeFileSync(path, publicKeyPem)
    const open = (publicKey: string) =>
      openSigner({ keysFolder, environment, command: { command: ['true'], publicKey } })
    expect((await open(path))?.fingerprint).toBe(fingerprint)
    for (const wrong of [join(folder, 'nowhere.pem'), pem, '-----BEGIN nothing']) {
      const error = await failureOf(open(wrong))
      expect(error.exit).toBe(2)
      expect(`${error.message} ${error.why} ${error.stack ?? ''}`).not.toContain(pem.split('\n')[1])
    }
  })
})

describe('where the key is', () => {
  test('the variable wins over the program, the program over the file', async () => {
    const [other, file] = [makePrivateKey(), makePrivateKey()]
    mkdirSync(keysFolder, { recursive: true })
    writeFileSync(join(keysFolder, 'signing.pem'), file)
    const command = { command: ['true'], publicKey: publicKeyPem }
    const opened = async (TMS_SIGNING_KEY: string | undefined, with_: typeof command | null) =>
      (await openSigner({ keysFolder, environment: { TMS_SIGNING_KEY }, command: with_ }))?.fingerprint
    expect(await opened(other, command)).toBe(signerOf(other)?.fingerprint)
    expect(await opened(undefined, command)).toBe(fingerprint)
    expect(await opened(undefined, null)).toBe(signerOf(file)?.fingerprint)
    expect(await openSigner({ keysFolder: join(folder, 'empty'), environment: {} })).toBeNull()
  })

  test('a file or a variable that is no key is a problem, not an absent key, and is never quoted', async () => {
    const broken = pem.replace(/^(.{60})/m, (line) => line.toLowerCase())
    const secret = 'MC4CAQAwBQYDK2Vw-not-a-key'
    writeFileSync(join(keysFolder, 'signing.pem'), secret)
    for (const sources of [
      { keysFolder, environment: {} },
      { keysFolder, environment: { TMS_SIGNING_KEY: secret } },
      { keysFolder, environment: { TMS_SIGNING_KEY: broken } },
    ]) {
      const error = await failureOf(openSigner(sources))
      expect([error.code, error.exit]).toEqual(['CONFIG_INVALID', 2])
      expect(`${error.message} ${error.why} ${error.stack ?? ''} ${String(error.cause)}`).not.toContain('not-a-key')
    }
  })
})

describe('settings', () => {
  const resolve = async (text: string, variables: NodeJS.ProcessEnv = {}) => {
    const at = mkdtempSync(join(folder, 'config-'))
    writeFileSync(join(at, 'tms.config.yaml'), text, { mode: 0o600 })
    return { at, settings: await resolveSettings({ folder: at, environment: variables, flags: {} }) }
  }

  test.each([
    [
      'a list',
      'signing:\n  command: [kms-sign, --key, "a b"]\n  publicKey: public.pem\n',
      ['kms-sign', '--key', 'a b'],
    ],
    ['one line', 'signing:\n  command: kms-sign --key  k1\n  publicKey: public.pem\n', ['kms-sign', '--key', 'k1']],
    ['a profile', 'profile: p\nprofiles:\n  p:\n    signing: {command: kms, publicKey: public.pem}\n', ['kms']],
  ])('signing.command may be %s', async (_, text, words) => {
    const { at, settings } = await resolve(text)
    const { command } = signerSources(settings, {})
    expect(command).toEqual({ command: words, publicKey: join(at, 'public.pem') })
    expect(settings.sources['signing.command']).toMatch(/tms\.config\.yaml:\d/)
  })

  test('the variables say the same, and win', async () => {
    const { settings } = await resolve('signing:\n  command: [other]\n  publicKey: public.pem\n', {
      TMS_SIGNING_COMMAND: '["kms-sign", "a b"]',
      TMS_SIGNING_PUBLIC_KEY: publicKeyPem,
    })
    expect(signerSources(settings, {}).command).toEqual({ command: ['kms-sign', 'a b'], publicKey: publicKeyPem })
  })

  test('a program without its public half, words that are none and another key are refused', async () => {
    const { settings } = await resolve('signing:\n  command: [kms-sign]\n')
    expect(() => signerSources(settings, {})).toThrow(expect.objectContaining({ code: 'CONFIG_MISSING' }))
    for (const text of [
      'signing:\n  command: []\n',
      'signing:\n  command: 5\n',
      'signing:\n  comand: x\n',
      'signing: x\n',
    ]) {
      await expect(resolve(text)).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
    }
    await expect(resolve('signing:\n  comand: x\n')).rejects.toMatchObject({ message: expect.stringContaining(':2:') })
  })

  test('the key itself is shown to nobody', async () => {
    const { settings } = await resolve('driver: embedded\n', { TMS_SIGNING_KEY: pem })
    expect(JSON.stringify(showSettings(settings))).not.toContain(pem.split('\n')[1])
    expect(settings.secrets).toContain(pem.split('\n')[1])
  })
})
