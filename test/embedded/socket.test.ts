import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { openEmbedded } from '../../src/drivers/embedded/driver.ts'
import { until } from '../servers/process.ts'
import { dial as dialOwner, repliesOn, type Reply } from './dial.ts'
import { bundle, connectionTo, type Bundle } from './bundle.ts'

/** What a process with its own ideas can do on the owner's socket. */

let built: Bundle
let directory: string
let owner: Driver
const sockets: Socket[] = []
beforeAll(async () => {
  built = await bundle()
  directory = await built.database()
  owner = await openEmbedded(connectionTo(directory), built.internals)
})
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy()
  // Whatever was done to it, it still serves.
  expect(await owner.call('signals', { channel: 'busy', after: '0' })).toEqual({ cursor: '0', signals: 0 })
})
afterAll(async () => {
  await owner.close()
  built.remove()
})

async function dial(): Promise<Socket> {
  const socket = await dialOwner(directory)
  sockets.push(socket)
  return socket
}

/** Sends the lines and gives as many answers. */
async function converse(lines: readonly string[]): Promise<readonly Reply[]> {
  const socket = await dial()
  const replies = repliesOn(socket)
  for (const line of lines) socket.write(`${line}\n`)
  await until('the answers', () => replies.length >= lines.length)
  return replies
}

async function tenants(): Promise<number> {
  const answer = await owner.call('tenants_list', {})
  return 'tenants' in answer ? answer.tenants.length : -1
}

const add = (key: string) => ({ request_id: randomUUID(), key, name: key })

test('everything that is not one of the two requests is refused, and nothing runs', async () => {
  const before = await tenants()
  const args = add('forged')
  const requests: unknown[] = [
    null,
    7,
    'select 1',
    [],
    {},
    { id: 1 },
    { id: 1, call: 'tenants_add' },
    { id: 1, call: 'tenants_add', args: [args] },
    { id: 1, call: 'tenants_add', args: JSON.stringify(args) },
    { id: 1, call: 'tenants_add', args, listen: 'flags' },
    { id: 1, call: 'tenants_add', args, user: 'root' },
    { id: 1, call: 'tenants_add', args, sql: 'drop schema tms cascade' },
    { id: 1, call: '_attach_local', args: {} },
    { id: 1, call: 'tenants_add(null); drop table tms.requests; --', args },
    { id: 1, call: '__proto__', args },
    { id: 1, call: 'toString', args },
    { id: 1, call: ['tenants_add'], args },
    { id: 1, sql: 'select 1' },
    { id: 1, administration: 'select 1' },
    { id: 1, listen: 'other' },
    { id: 1, listen: 'flags; drop schema tms cascade' },
    { id: -1, call: 'tenants_add', args },
    { id: 1.5, call: 'tenants_add', args },
    { id: 'one', call: 'tenants_add', args },
    { call: 'tenants_add', args },
  ]
  const replies = await converse(requests.map((request) => JSON.stringify(request)))
  for (const reply of replies) expect(reply).toMatchObject({ error: { code: 'INPUT_INVALID' } })
  expect(await tenants()).toBe(before)
})

test('lines that are no JSON are refused, and the next line is answered', async () => {
  const ask = JSON.stringify({ id: 5, call: 'signals', args: { channel: 'busy', after: '0' } })
  const replies = await converse(['{', 'GET / HTTP/1.1', '{"id":1,"call":"tenants_add","args":{', ask])
  expect(replies.map((reply) => reply.id)).toEqual([null, null, null, 5])
  expect(replies[3]).toEqual({ id: 5, answer: { cursor: '0', signals: 0 } })
})

test('random bytes, half lines and clients that vanish change nothing', async () => {
  const before = await tenants()
  for (let i = 0; i < 50; i++) {
    const socket = await dial()
    if (i % 3 === 0) socket.write(randomBytes(10_000))
    if (i % 3 === 1) socket.write(`{"id":1,"call":"tenants_add","args":${JSON.stringify(add('half'))}`)
    if (i % 3 === 2)
      socket.write(`${JSON.stringify({ id: 1, call: 'signals', args: { channel: 'busy', after: '5' } })}\n`.repeat(20))
    if (i % 2 === 0) socket.destroy()
    else socket.end()
  }
  expect(await tenants()).toBe(before)
})

test('a line longer than 4 MB is refused and ends the connection', async () => {
  const socket = await dial()
  let heard = ''
  socket.on('data', (part) => (heard += part.toString()))
  // Not \`once\`: it fails with the error that comes before.
  const closed = new Promise((ended) => socket.on('close', ended))
  const half = Buffer.alloc(1024 * 1024, 'x')
  for (let i = 0; i < 6; i++) socket.write(half)
  await closed
  expect(heard === '' || heard.includes('INPUT_INVALID')).toBe(true)
})

test('a line may come in pieces of one byte', async () => {
  const socket = await dial()
  const [first] = await Promise.all([
    once(socket, 'data'),
    (async () => {
      const line = `${JSON.stringify({ id: 9, call: 'tenants_add', args: add('漢字 in pieces') })}\n`
      for (const byte of Buffer.from(line)) {
        socket.write(Buffer.of(byte))
        await new Promise((next) => setImmediate(next))
      }
    })(),
  ])
  expect(String(first[0])).toContain('漢字 in pieces')
})

test('200 clients that say nothing and one that never reads do not keep the others waiting', async () => {
  await Promise.all(Array.from({ length: 200 }, () => dial()))
  const deaf = await dial()
  deaf.pause()
  const big = { ...add('big'), name: 'x'.repeat(500_000) }
  for (let i = 0; i < 200; i++)
    deaf.write(`${JSON.stringify({ id: i, call: 'tenants_add', args: { ...big, request_id: randomUUID() } })}\n`)
  const replies = await converse([JSON.stringify({ id: 1, call: 'signals', args: { channel: 'busy', after: '0' } })])
  expect(replies[0]).toMatchObject({ id: 1, answer: { cursor: '0' } })
  // It isn't read from any more: the owner holds a bounded part of what it sent and of what it is owed.
  await until('a standstill', async () => {
    const before = await tenants()
    await owner.call('signals', { channel: 'busy', after: '100' })
    return (await tenants()) === before
  })
  expect(await tenants()).toBeLessThan(150)
})

test('each of many clients gets its own answers, in the size that it asked for', async () => {
  const clients = await Promise.all(
    Array.from({ length: 20 }, () => openEmbedded(connectionTo(directory), built.internals)),
  )
  try {
    const answers = await Promise.all(
      clients.flatMap((client, c) =>
        Array.from({ length: 20 }, async (_, i) => {
          const name = `${c} ${i} ${'é'.repeat((c * 20 + i) * 40)}`
          const answer = await client.call('tenants_add', { ...add('own'), name })
          return 'tenant' in answer && answer.tenant.name === name
        }),
      ),
    )
    expect(answers).toEqual(Array(400).fill(true))
  } finally {
    for (const client of clients) await client.close()
  }
})
