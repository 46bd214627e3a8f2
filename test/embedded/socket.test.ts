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

const signals = (id: number) => JSON.stringify({ id, call: 'signals', args: { channel: 'busy', after: '0' } })
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

test('a line longer than 4 MB is refused, and the lines before and behind it are answered', async () => {
  const socket = await dial()
  const replies = repliesOn(socket)
  socket.write(`${signals(1)}\n`)
  for (let i = 0; i < 6; i++) socket.write(Buffer.alloc(1024 * 1024, 'x'))
  socket.write(`\n${signals(2)}\n`)
  await until('the answers', () => replies.length >= 3)
  expect(replies.map(({ id, error }) => [id, error?.code])).toEqual(
    expect.arrayContaining([
      [1, undefined],
      [null, 'INPUT_INVALID'],
      [2, undefined],
    ]),
  )
  expect(replies).toHaveLength(3)
})

test('arguments nested without end are refused with the id of their request, and calls in flight are answered', async () => {
  const before = await tenants()
  const nested = (levels: number) => `${'['.repeat(levels)}${']'.repeat(levels)}`
  const lines = [1001, 4_000, 6_000, 100_000, 1_000_000].flatMap((levels, i) => [
    signals(2 * i),
    `{"id":${2 * i + 1},"call":"tenants_add","args":{"request_id":"${randomUUID()}","key":"deep","name":${nested(levels - 1)}}}`,
  ])
  const replies = await converse([...lines, nested(100_000), `{"id":${nested(6_000)},"call":"signals","args":{}}`])
  const refused = replies.filter(({ error }) => error)
  expect(refused.map(({ id }) => id)).toEqual([1, 3, 5, 7, 9, null, null])
  for (const reply of refused) expect(reply).toMatchObject({ error: { code: 'INPUT_INVALID' } })
  expect(refused[0]?.error?.why).toContain('nested deeper than 1000 levels')
  expect(replies.filter(({ answer }) => answer).map(({ id }) => id)).toEqual([0, 2, 4, 6, 8])
  expect(await tenants()).toBe(before)
  // as deep as may be
  const name = JSON.parse(nested(999)) as string
  await expect(owner.call('tenants_add', { ...add('deep enough'), name })).resolves.toMatchObject({ tenant: {} })
})

test('a driver refuses what is nested too deeply itself, as the owner and as its client', async () => {
  // The cast is the point: a value that comes from outside may be anything.
  const name = JSON.parse(`${'['.repeat(6_000)}${']'.repeat(6_000)}`) as string
  const client = await openEmbedded(connectionTo(directory), built.internals)
  try {
    for (const driver of [owner, client]) {
      await expect(driver.call('tenants_add', { ...add('deep'), name })).rejects.toMatchObject({
        code: 'INPUT_INVALID',
        why: expect.stringContaining('1000 levels'),
      })
    }
  } finally {
    await client.close()
  }
})

test('bytes that are no UTF-8 are refused, and so is half a surrogate pair', async () => {
  const before = await tenants()
  const socket = await dial()
  const replies = repliesOn(socket)
  const line = (name: string) => JSON.stringify({ id: 1, call: 'tenants_add', args: { ...add('utf8'), name } })
  const [start = '', end = ''] = line('|').split('|')
  for (const bytes of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0xf8, 0x88, 0x80, 0x80, 0x80], [0xc0, 0x80]]) {
    socket.write(Buffer.concat([Buffer.from(start), Buffer.from(bytes), Buffer.from(`${end}\n`)]))
  }
  await until('the answers', () => replies.length >= 5)
  for (const reply of replies) {
    expect(reply).toMatchObject({ id: null, error: { code: 'INPUT_INVALID', why: 'The line is not UTF-8.' } })
  }
  for (const text of ['\\ud800', '\\udc00\\ud800', '\\u0000']) {
    const [reply] = await converse([`${start}${text}${end}`])
    expect(reply).toMatchObject({ id: 1, error: { code: 'INPUT_INVALID' } })
  }
  expect(await tenants()).toBe(before)
})

test('an id that still waits for its answer is refused a second time, and the first is answered', async () => {
  const first = JSON.stringify({ id: 7, call: 'tenants_add', args: add('first of two') })
  const replies = await converse([first, signals(7), signals(8)])
  expect(replies.find(({ id }) => id === null)).toMatchObject({ error: { code: 'INPUT_INVALID' } })
  expect(replies.find(({ id }) => id === 7)).toMatchObject({ answer: { tenant: { key: 'first of two' } } })
  expect(replies.find(({ id }) => id === 8)).toMatchObject({ answer: { signals: 0 } })
})

test('who has said all still gets the answers, and hears of a last line without an end', async () => {
  const socket = await dial()
  const replies = repliesOn(socket)
  const closed = once(socket, 'close')
  socket.end(`${JSON.stringify({ id: 1, call: 'tenants_add', args: add('goodbye') })}\n${signals(2)}`)
  await closed
  expect(replies).toHaveLength(2)
  expect(replies.find(({ id }) => id === 1)).toMatchObject({ answer: { tenant: { key: 'goodbye' } } })
  expect(replies.find(({ id }) => id === null)).toMatchObject({
    error: { code: 'INPUT_INVALID', why: 'The last line has no end.' },
  })
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
