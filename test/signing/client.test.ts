import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import fc from 'fast-check'
import { createSigningClient } from '../../src/signing/client.ts'
import { verifySignature, type Verdict } from '../../src/signing/request.ts'
import { listen } from './listen.ts'

const secret = randomBytes(32).toString('hex')

/** A door that checks the signature of what came over the wire. */
async function door(verdicts: Verdict[] = []) {
  const seen: { method: string; path: string; body: string }[] = []
  const url = await listen((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const body = Buffer.concat(parts)
      const { method = '', url: path = '', headers } = request
      seen.push({ method, path, body: body.toString() })
      const keys = (id: string) => (id === 'agent' ? [secret] : [])
      const verdict = verifySignature({ headers, method, path, body, now: new Date(), keys })
      verdicts.push(verdict)
      if (path.startsWith('/moved')) response.writeHead(302, { location: '/v1/elsewhere' }).end()
      else response.writeHead(verdict.kind === 'ok' ? 200 : 401).end(JSON.stringify({ kind: verdict.kind }))
    })
  })
  return { url, seen, verdicts }
}

test('what it sends verifies on the other side: with and without a body, with a query, below a prefix', async () => {
  const { url, seen, verdicts } = await door()
  const client = createSigningClient({ baseUrl: `${url}/api/`, keyId: 'agent', secret })
  expect((await client.request('POST', '/v1/tasks?a=ü&b=c d', { text: 'Grüße \ud800' })).status).toBe(200)
  expect((await client.request('GET', '/v1/tasks?')).status).toBe(200)
  expect((await client.request('DELETE', '/v1/tasks/1#part')).status).toBe(200)
  expect(seen.map(({ path }) => path)).toEqual(['/api/v1/tasks?a=%C3%BC&b=c%20d', '/api/v1/tasks', '/api/v1/tasks/1'])
  expect(new Set(verdicts.map((verdict) => verdict.kind === 'ok' && verdict.nonce)).size).toBe(3)
})

test('any path that it sends is the path that it signed', async () => {
  const { url, verdicts } = await door()
  const client = createSigningClient({ baseUrl: url, keyId: 'agent', secret })
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: 'binary' }), fc.jsonValue(), async (text, body) => {
      verdicts.length = 0
      const answer = await client.request('PUT', `/${text}`, body).catch((error: unknown) => error)
      if (answer instanceof Response) {
        await answer.body?.cancel()
        expect(verdicts[0]).toMatchObject({ kind: 'ok' })
      } else expect(verdicts).toEqual([])
    }),
    { numRuns: 60 },
  )
})

test('no path leads to another host or out of the prefix', async () => {
  const { url, seen } = await door()
  const client = createSigningClient({ baseUrl: `${url}/api`, keyId: 'agent', secret })
  for (const path of [
    '',
    'v1',
    '@evil.example/',
    ':1/',
    '.evil.example/',
    '/../admin',
    '/%2e%2e/admin',
    '/..\\admin',
  ]) {
    await expect(client.request('GET', path), path).rejects.toThrow(/path/)
  }
  expect(seen).toEqual([])
})

test('a redirect is an answer and is not followed', async () => {
  const { url, seen } = await door()
  const client = createSigningClient({ baseUrl: url, keyId: 'agent', secret })
  expect((await client.request('POST', '/moved', {})).status).toBe(302)
  expect(seen).toHaveLength(1)
})

test('headers of the caller cannot replace the signature', async () => {
  const { url } = await door()
  const client = createSigningClient({ baseUrl: url, keyId: 'agent', secret })
  const headers = { 'x-transbot-key': 'other', 'Idempotency-Key': '1' }
  expect((await client.request('POST', '/', {}, { headers })).status).toBe(200)
})

test('it can be stopped', async () => {
  const url = await listen(() => undefined)
  const client = createSigningClient({ baseUrl: url, keyId: 'agent', secret })
  const stop = new AbortController()
  const answer = client.request('POST', '/', {}, { signal: stop.signal })
  stop.abort()
  await expect(answer).rejects.toThrow(/abort/i)
})

test('bases that cannot be signed for are refused at once', () => {
  for (const baseUrl of ['', 'ftp://h', 'http://user:secret@h', 'http://h/?a=1', 'http://h/#a', 'file:///etc/passwd']) {
    expect(() => createSigningClient({ baseUrl, keyId: 'agent', secret }), baseUrl).toThrow(/base URL/)
  }
})

test('a body that is no JSON is refused before anything is sent', async () => {
  const client = createSigningClient({ baseUrl: 'http://127.0.0.1:1', keyId: 'agent', secret })
  await expect(client.request('POST', '/', () => 1)).rejects.toThrow(/body/)
})
