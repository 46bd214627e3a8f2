import fc from 'fast-check'
import { expect, test } from 'vitest'
import { addressProblem, lookup, reachOf } from '../../../src/outbox/targets/address.ts'
import { openTarget } from '../../../src/outbox/targets/kinds.ts'
import { aContext, anEvent, checkSigned, receiver, signingSecret } from './receivers.ts'

const nowhere = async () => Promise.reject(new Error('no lookup expected'))

async function problem(url: string, hosts: readonly string[] = [], found?: readonly string[]) {
  return addressProblem(new URL(url), hosts, found ? async () => found : nowhere)
}

test.each([
  ['8.8.8.8', 'public'],
  ['172.15.255.255', 'public'],
  ['172.16.0.1', 'inside'],
  ['127.8.9.1', 'inside'],
  ['10.0.0.1', 'inside'],
  ['192.168.1.1', 'inside'],
  ['100.64.0.1', 'inside'],
  ['169.254.169.254', 'never'],
  ['0.0.0.0', 'never'],
  ['255.255.255.255', 'never'],
  ['100.100.100.200', 'never'],
  ['2606:4700::1111', 'public'],
  ['::1', 'inside'],
  ['::', 'never'],
  ['fc00::1', 'inside'],
  ['fe80::1%eth0', 'never'],
  ['fd00:ec2::254', 'never'],
  ['::ffff:169.254.169.254', 'never'],
  ['::ffff:7f00:1', 'inside'],
  ['::127.0.0.1', 'inside'],
  ['64:ff9b::a9fe:a9fe', 'never'],
  ['2002:a00:1::', 'inside'],
  ['::ffff:8.8.8.8', 'public'],
  ['no address', 'never'],
])('%s is %s', (address, reach) => {
  expect(reachOf(address)).toBe(reach)
})

test('an IPv4 address leads to the same place however IPv6 carries it', () => {
  fc.assert(
    fc.property(fc.ipV4(), (address) => {
      fc.pre(!address.startsWith('0.'))
      for (const prefix of ['::ffff:', '::', '64:ff9b::']) expect(reachOf(prefix + address)).toBe(reachOf(address))
    }),
  )
})

test('https to a public address needs no permission, everything else does', async () => {
  expect(await problem('https://api.example/', [], ['93.184.216.34'])).toBeNull()
  expect(await problem('https://8.8.8.8/')).toBeNull()
  expect(await problem('http://api.example/', [], ['93.184.216.34'])).toMatch(/plain http/)
  expect(await problem('http://api.example/', ['api.example'], ['93.184.216.34'])).toBeNull()
  expect(await problem('https://inside.example/', [], ['10.1.2.3'])).toMatch(/private/)
  expect(await problem('https://inside.example/', ['inside.example'], ['10.1.2.3'])).toBeNull()
  expect(await problem('https://two.example/', [], ['93.184.216.34', '127.0.0.1'])).toMatch(/private/)
  await expect(problem('https://nothing.example/', [], [])).rejects.toThrow('no address')
})

test('a port in the list is that port only', async () => {
  expect(await problem('http://127.0.0.1:5678/', ['127.0.0.1:5678'])).toBeNull()
  expect(await problem('http://127.0.0.1:5432/', ['127.0.0.1:5678'])).toMatch(/hosts/)
  expect(await problem('https://127.0.0.1/', ['127.0.0.1:443'])).toBeNull()
  expect(await problem('http://[::1]/', ['[::1]'])).toBeNull()
})

test('other spellings of an address are that address', async () => {
  for (const url of [
    'https://2130706433/',
    'https://0x7f.1/',
    'https://127.1/',
    'https://[::ffff:7f00:1]/',
    'https://127.0.0.1./',
  ]) {
    expect(await problem(url), url).toMatch(/private/)
  }
})

test('the addresses of cloud credentials are refused even when the list names them', async () => {
  expect(await problem('http://169.254.169.254/latest', ['169.254.169.254'])).toMatch(/never/)
  expect(await problem('http://metadata.example/', ['metadata.example'], ['169.254.169.254'])).toMatch(/never/)
})

test('a target sends nothing to an address that is not allowed', async () => {
  const there = await receiver(checkSigned)
  const target = openTarget('webhook', { url: there.url, keyId: 'tms', secretFrom: { env: 'S' } })
  expect(await target.send(async () => signingSecret, anEvent(), aContext())).toMatchObject({ kind: 'rejected' })
  const { port } = new URL(there.url)
  const named = openTarget('http', { url: `https://inside.example:${port}/` })
  const context = aContext({ lookup: async () => ['127.0.0.1'] })
  expect(await named.send(async () => '', anEvent(), context)).toMatchObject({ kind: 'rejected' })
  expect(there.requests).toBe(0)
})

test('a host that is not found is tried again', async () => {
  const target = openTarget('http', { url: 'https://gone.example/' })
  const failing = async () => Promise.reject(Object.assign(new Error('gone.example'), { code: 'ENOTFOUND' }))
  expect(await target.send(async () => '', anEvent(), aContext({ lookup: failing }))).toEqual({
    kind: 'retry',
    why: "the host's address was not found (ENOTFOUND)",
  })
})

test('a lookup that ends after the time was up sends nothing any more', async () => {
  const there = await receiver(() => [200, ''])
  let found: (addresses: readonly string[]) => void = () => undefined
  const slow = () => new Promise<readonly string[]>((resolve) => (found = resolve))
  const { port } = new URL(there.url)
  const target = openTarget('http', { url: `http://localhost:${port}/`, hosts: ['localhost'] })
  const outcome = await target.send(async () => '', anEvent(), aContext({ lookup: slow, timeoutMs: 30 }))
  expect(outcome).toMatchObject({ kind: 'retry', why: expect.stringContaining('before anything was sent') })
  found(['127.0.0.1'])
  // A request of its own shows that the server had its turn.
  await (await fetch(there.url)).text()
  expect(there.requests).toBe(1)
})

test('the lookup of the system knows this machine', async () => {
  expect((await lookup('localhost')).map(reachOf)).toContain('inside')
})
