import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { until } from '../servers/process.ts'
import {
  doorOf,
  houses,
  ringOf,
  send,
  sendRaw,
  sign,
  stored,
  tasks,
  type House,
  type SigningKey,
  type TestDoor,
} from './house.ts'

/** What clients do to connections. The database is the embedded one: it has no part in this. */
let house: House
let key: SigningKey
beforeAll(async () => {
  house = await houses.embedded()
  key = await house.key('n8n')
})
afterAll(() => house.stop())

const keys = () => ringOf(key)
const headOf = (headers: Record<string, string>, length: number | string) =>
  `POST /v1/tasks HTTP/1.1\r\nHost: door\r\nContent-Type: application/json\r\n${Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}Content-Length: ${length}\r\n\r\n`

async function open(door: TestDoor): Promise<Socket> {
  const socket = connect(door.port, '127.0.0.1')
  socket.on('error', () => undefined)
  onTestFinished(() => void socket.destroy())
  await once(socket, 'connect')
  return socket
}

test('200 connections that say nothing do not keep a good request out', async () => {
  // Fewer places than silent ones, and no time-out that could make room.
  const door = await doorOf(house, { keys, limits: { connections: 100, headersMs: 60_000, requestMs: 60_000 } })
  const silent = await Promise.all(Array.from({ length: 200 }, () => open(door)))
  for (let i = 0; i < 3; i += 1) expect((await send(door, { body: tasks(), key })).status).toBe(202)
  await until(
    'the ones that waited longest were put out',
    () => silent.filter((socket) => socket.destroyed).length >= 100,
  )
})

test('a request that is being worked on is never put out for another', async () => {
  const gate = gated(house.driver)
  const door = await doorOf(house, { keys, driver: gate.driver, limits: { connections: 5, headersMs: 60_000 } })
  const working = send(door, { body: tasks(), key })
  await gate.reached
  await Promise.all(Array.from({ length: 20 }, () => open(door)))
  gate.open()
  expect((await working).status).toBe(202)
})

test('silent connections and slow heads end with 408', async () => {
  const door = await doorOf(house, { keys, limits: { headersMs: 100, requestMs: 100, checkMs: 20 } })
  const answers = await Promise.all([sendRaw(door), sendRaw(door, 'POST /v1/tasks HTTP/1.1\r\nHo')])
  for (const answer of answers) expect(answer).toMatch(/^HTTP\/1.1 408 .*\r\n[^]*x-frame-options: DENY\r\n[^]*"SLOW"/)
  expect((await send(door, { body: tasks(), key })).status).toBe(202)
})

test('a body that drips ends with 408 and stores nothing', async () => {
  const door = await doorOf(house, { keys, limits: { headersMs: 100, requestMs: 150, checkMs: 20 } })
  const before = await stored(house)
  const body = tasks()
  const answer = await sendRaw(door, headOf(sign(key, { body }), body.length), body.slice(0, 10))
  expect(answer).toMatch(/^HTTP\/1.1 408 /)
  expect(answer.match(/HTTP\/1.1/g)).toHaveLength(1)
  expect(await stored(house)).toEqual(before)
})

test('bodies that arrive are held only up to a limit, and their room comes back', async () => {
  const door = await doorOf(house, { keys, limits: { arrivingBytes: 1_000_000 } })
  const big = 'x'.repeat(800_000)
  const [one, two] = [await open(door), await open(door)]
  for (const socket of [one, two]) socket.write(headOf(sign(key, { body: big }), 900_000) + big)
  await until('one of them was ended', () => one.destroyed || two.destroyed)
  one.destroy()
  two.destroy()
  await until('a good one is served', async () => (await send(door, { body: tasks(), key })).status === 202)
})

test('one address takes a share of what may arrive, and leaves the others theirs', async () => {
  const limits = { arrivingBytes: 1_000_000, bodyBytes: 250_000, requestMs: 60_000 }
  const door = await doorOf(house, { keys, limits, trustProxy: ['127.0.0.0/8'] })
  const part = 'x'.repeat(200_000)
  const sockets = await Promise.all(Array.from({ length: 12 }, () => open(door)))
  const forged = { ...sign(key, { body: part }), 'X-Forwarded-For': '203.0.113.5' }
  for (const socket of sockets) socket.write(headOf(forged, 240_000) + part)
  await until('all but one were ended', () => sockets.filter(({ destroyed }) => destroyed).length >= 11)
  const body = JSON.stringify({ ...(JSON.parse(tasks()) as object), padding: 'x'.repeat(200_000) })
  const { status } = await send(door, { body, key, headers: { 'X-Forwarded-For': '203.0.113.6' } })
  // Taken in whole and read: what is too much in it is another matter.
  expect(status).toBe(400)
})

test('a chunked body is measured as it comes', async () => {
  const door = await doorOf(house, { keys, limits: { bodyBytes: 10_000 } })
  const head = headOf(sign(key, {}), 0).replace('Content-Length: 0', 'Transfer-Encoding: chunked')
  const chunk = `1000\r\n${'x'.repeat(0x1000)}\r\n`
  expect(await sendRaw(door, head, chunk, chunk, chunk, chunk)).toMatch(/^HTTP\/1.1 413 /)
})

test.each<readonly [what: string, status: number, bytes: string | Uint8Array]>([
  ['no HTTP', 400, 'hello\r\n\r\n'],
  ['TLS', 400, Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01])],
  ['two lengths', 400, 'POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx'],
  [
    'length and chunks',
    400,
    'POST /v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  ],
  ['huge headers', 431, `GET /healthz HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(40_000)}\r\n\r\n`],
  ['an unknown expectation', 417, 'POST /v1/tasks HTTP/1.1\r\nHost: a\r\nExpect: zz\r\nContent-Length: 2\r\n\r\n{}'],
  ['no Host', 400, 'GET /healthz HTTP/1.1\r\n\r\n'],
  ['a broken path', 400, 'GET /v1/webhooks/%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'],
])('%s is answered with %i and the usual headers', async (_, status, bytes) => {
  const door = await doorOf(house, { keys })
  const answer = await sendRaw(door, bytes)
  expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
  for (const header of ['strict-transport-security', 'x-content-type-options', 'content-security-policy']) {
    expect(answer.toLowerCase()).toContain(`\r\n${header}: `)
  }
  expect(answer).not.toMatch(/\r\n(server|x-powered-by):/i)
  expect((await send(door, { method: 'GET', path: '/healthz' })).status).toBe(200)
})

test('an address in X-Forwarded-For counts only when it comes from a trusted proxy', async () => {
  const subjects = async () => {
    const rows = await house.sql(`select subject from tms.edge_rate_limits where subject like 'address:%' order by 1`)
    return rows.map(({ subject }) => subject)
  }
  const headers = { 'X-Forwarded-For': '198.51.100.1, 192.0.2.9' }
  await house.sql('delete from tms.edge_rate_limits')
  const plain = await doorOf(house, { keys })
  await send(plain, { body: tasks(), key, headers })
  expect(await subjects()).toEqual(['address:127.0.0.1'])
  await house.sql('delete from tms.edge_rate_limits')
  const trusting = await doorOf(house, { keys, trustProxy: ['127.0.0.0/8'] })
  await send(trusting, { body: tasks(), key, headers })
  // The nearest that isn't a proxy of ours: what stands left of it anybody can write.
  expect(await subjects()).toEqual(['address:192.0.2.9'])
  await send(trusting, { body: tasks(), key, headers: { 'X-Forwarded-For': "'; drop table" } })
  expect(await subjects()).toEqual(['address:127.0.0.1', 'address:192.0.2.9'])
  // With ports, as some proxies write them; the last one is a proxy of ours, too.
  await house.sql('delete from tms.edge_rate_limits')
  for (const client of ['192.0.2.9:5678', '[2001:db8::1]:443'])
    await send(trusting, {
      body: tasks(),
      key,
      headers: { 'X-Forwarded-For': `198.51.100.1, ${client}, 127.0.0.9:80` },
    })
  expect(await subjects()).toEqual(['address:192.0.2.9', 'address:2001:db8:0:0::/64'])
})

test('metrics are for this host, or for whoever has the token', async () => {
  const get = (door: TestDoor, headers: Record<string, string>) =>
    send(door, { method: 'GET', path: '/metrics', headers }).then(({ status }) => status)
  const near = await doorOf(house, { keys })
  expect(await get(near, {})).toBe(200)
  expect(await get(near, { 'X-Forwarded-For': '192.0.2.9' })).toBe(404)
  const guarded = await doorOf(house, { keys, metricsToken: 'a-long-token' })
  expect(await get(guarded, {})).toBe(401)
  expect(await get(guarded, { Authorization: 'Bearer a-long-toke' })).toBe(401)
  expect(await get(guarded, { Authorization: 'Bearer a-long-token', 'X-Forwarded-For': '192.0.2.9' })).toBe(200)
})

test('more signed requests than it works on at once are told to come again, and nothing is used up', async () => {
  const gate = gated(house.driver)
  const door = await doorOf(house, { keys, driver: gate.driver, limits: { working: 1 } })
  const first = send(door, { body: tasks(), key })
  await gate.reached
  const body = tasks()
  const headers = sign(key, { body })
  const second = await send(door, { body, headers })
  expect([second.status, second.headers['retry-after']]).toEqual([503, '1'])
  gate.open()
  expect((await first).status).toBe(202)
  expect((await send(door, { body, headers })).status).toBe(202)
})

test('closing lets what is in flight finish, and lets nobody new in', async () => {
  const gate = gated(house.driver)
  const door = await doorOf(house, { keys, driver: gate.driver })
  const inFlight = send(door, { body: tasks(), key })
  await gate.reached
  const late = await open(door)
  const closing = door.close()
  late.write('GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n')
  const [said] = (await once(late, 'data')) as [Buffer]
  expect(said.toString()).toMatch(/^HTTP\/1.1 503 [^]*draining/)
  gate.open()
  expect((await inFlight).status).toBe(202)
  await closing
  await expect(send(door, { method: 'GET', path: '/healthz' })).rejects.toMatchObject({ code: 'ECONNREFUSED' })
})

test('what does not finish within the grace does not keep the door from closing', async () => {
  const gate = gated(house.driver)
  const door = await doorOf(house, { keys, driver: gate.driver, limits: { graceMs: 50 } })
  const inFlight = send(door, { body: tasks(), key }).catch((error: unknown) => error)
  await gate.reached
  await door.close()
  expect(await inFlight).toBeInstanceOf(Error)
  gate.open()
})

test('ready means that the database answers; alive does not', async () => {
  const gone = gated(house.driver)
  gone.fail()
  const door = await doorOf(house, { keys, driver: gone.driver })
  expect((await send(door, { method: 'GET', path: '/readyz' })).status).toBe(503)
  expect((await send(door, { method: 'GET', path: '/healthz' })).status).toBe(200)
  const sent = await send(door, { body: tasks(), key })
  expect([sent.status, sent.text]).toEqual([500, expect.stringContaining('INTERNAL')])
  const works = await doorOf(house, { keys })
  expect((await send(works, { method: 'HEAD', path: '/readyz' })).status).toBe(200)
})

/** The real driver behind a gate: its calls wait until it is opened. */
function gated(driver: Driver) {
  let reach: () => void = () => undefined
  const reached = new Promise<void>((resolve) => (reach = resolve))
  let go: () => void = () => undefined
  const opened = new Promise<void>((resolve) => (go = resolve))
  let broken = false
  const call: Driver['call'] = async (fn, args, options) => {
    if (broken) throw new Error('no connection to 10.1.2.3')
    if (fn === 'door_admit') {
      reach()
      await opened
    }
    return driver.call(fn, args, options)
  }
  const listen: Driver['listen'] = (channel, onSignal) => driver.listen(channel, onSignal)
  return {
    driver: { target: driver.target, call, listen, close: async () => undefined },
    reached,
    open: () => go(),
    fail: () => {
      broken = true
    },
  }
}
