import { execFile, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { verifySignature, type Verdict } from '../../src/signing/request.ts'
import { listen } from './listen.ts'

const absent = ['curl', 'openssl', 'od'].filter((tool) => spawnSync('sh', ['-c', `command -v ${tool}`]).status !== 0)
const skipped = absent.length > 0 ? ` (skipped: ${absent.join(', ')} not installed)` : ''

/** The script exactly as the documentation prints it. */
function recipe(): string {
  const page = readFileSync(new URL('../../docs/signed-requests.md', import.meta.url), 'utf8')
  return /^```sh\n(#!\/bin\/sh\n[\s\S]*?)^```$/m.exec(page)?.[1] ?? ''
}

async function send(args: { secret: string; method?: string; path?: string; body?: string | Buffer; file?: string }) {
  const folder = mkdtempSync(join(tmpdir(), 'signed-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const verdicts: Verdict[] = []
  const url = await listen((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const { method = '', url: path = '', headers } = request
      const keys = (id: string) => (id === 'ops-2026' ? [args.secret] : [])
      const body = Buffer.concat(parts)
      const verdict = verifySignature({ headers, method, path, body, now: new Date(), keys })
      verdicts.push(verdict)
      response.writeHead(verdict.kind === 'ok' ? 200 : 401).end(verdict.kind)
    })
  })
  writeFileSync(join(folder, 'signed-request.sh'), recipe())
  writeFileSync(join(folder, 'secret.txt'), args.file ?? `${args.secret}\n`)
  writeFileSync(join(folder, 'body'), args.body ?? '{"hello":"wörld"}\n')
  const words = [args.method ?? 'POST', url, args.path ?? '/v1/tasks?dry_run=true', 'body']
  const { code, output } = await new Promise<{ code: number; output: string }>((resolve) => {
    execFile(
      'sh',
      ['signed-request.sh', ...words],
      { cwd: folder, env: { PATH: process.env.PATH ?? '', KEY_ID: 'ops-2026', SECRET_FILE: 'secret.txt' } },
      (error, stdout, stderr) => resolve({ code: error ? 1 : 0, output: stdout + stderr }),
    )
  })
  return { code, output, verdicts }
}

describe.skipIf(absent.length > 0)(`the shell recipe of the documentation${skipped}`, () => {
  test('sends a request that verifies', async () => {
    const { code, output, verdicts } = await send({ secret: randomBytes(32).toString('hex') })
    expect({ code, output }).toEqual({ code: 0, output: 'ok' })
    expect(verdicts).toMatchObject([{ kind: 'ok', keyId: 'ops-2026' }])
  })

  test.each([
    ['of one byte', 'x'],
    ['of 64 bytes', 'y'.repeat(64)],
    ['of 65 bytes', 'z'.repeat(65)],
    ['with percent signs, backslashes and umlauts', '%s\\n\\0 "ü" $HOME `id` *'],
  ])('takes a secret %s', async (_, secret) => {
    expect((await send({ secret })).output).toBe('ok')
  })

  test.each([
    ['GET', '/a/../b/./c', ''],
    ['PUT', '/list?ids[]={1,2}&x=%2F%20', '@file\n\n'],
    ['DELETE', '/%s\\n', randomBytes(300)],
  ])('%s %s arrives as it was signed', async (method, path, body) => {
    expect((await send({ secret: 'a secret', method, path, body })).output).toBe('ok')
  })

  test('fails when the secret is another one', async () => {
    expect(await send({ secret: 'right', file: 'wrong\n' })).toMatchObject({
      code: 1,
      verdicts: [{ kind: 'mismatch' }],
    })
  })

  test('gives the secret to no program as an argument or variable', () => {
    // Only what the shell itself runs may have it in a word: printf and test are part of it.
    const lines = recipe()
      .split('\n')
      .filter((line) => /\$(secret|key)\b|"\$secret"/.test(line))
    for (const line of lines) expect(line).toMatch(/printf %s "\$secret" \||for byte in \$key;/)
    expect(recipe()).not.toMatch(/export|-hmac|hexkey/)
  })
})
