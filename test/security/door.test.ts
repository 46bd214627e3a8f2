import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { listEvents, unblock } from '../../src/security/security.ts'
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
} from '../door/house.ts'
import { until } from '../servers/process.ts'

/** Attacks on the door: it counts them, shuts their source out, and serves everybody else. */

/** Often, so that a test needn't wait. */
const often = { reportMs: 20, refreshMs: 60 }

describe.each(Object.entries(houses))('the door before %s', (_, open) => {
  let house: House
  let key: SigningKey
  let other: SigningKey
  beforeAll(async () => {
    house = await open()
    key = await house.key('n8n')
    other = await house.key('autopilot')
  })
  afterAll(() => house.stop())
  beforeEach(async () => {
    await clock('0')
    for (const table of ['security_events', 'security_blocks', 'security_known', 'edge_rate_limits', 'edge_nonces'])
      await house.sql(`delete from tms.${table}`)
  })

  const clock = (offset: string) =>
    house.sql(
      `create or replace function tms.now() returns timestamptz language sql stable as $$ select pg_catalog.now() + interval '${offset}' $$`,
    )
  const opened = (limits = {}) => doorOf(house, { keys: () => ringOf(key, other), limits: { ...often, ...limits } })
  const wrong = (id: string): SigningKey => ({ id, secret: 'z'.repeat(43) })
  const body = tasks()
  const totals = async () => (await listEvents(house.operator, { minutes: 10, limit: 10 })).totals
  const count = async (table: string) =>
    Number((await house.sql(`select count(*)::int as n from tms.${table}`))[0]?.['n'])

  const attempts = process.env['TMS_TEST_FULL'] === '1' ? 10_000 : 2_000
  test(`${attempts} wrong signatures are a few rows and a few calls, and others are served meanwhile`, async () => {
    let calls = 0
    const driver = {
      ...house.driver,
      call: ((fn, args, options) => {
        calls++
        return house.driver.call(fn, args, options)
      }) as typeof house.driver.call,
    }
    const door = await doorOf(house, {
      keys: () => ringOf(key, other),
      driver,
      trustProxy: ['127.0.0.0/8'],
      limits: { reportMs: 250, refreshMs: 1000 },
    })
    const before = await stored(house)
    const headers = { 'X-Forwarded-For': '203.0.113.9' }
    const good: number[] = []
    const statuses = new Map<number, number>()
    for (let sent = 0; sent < attempts; sent += 200) {
      const turn = await Promise.all(
        Array.from({ length: 200 }, () =>
          send(door, { body, headers: { ...sign(wrong(key.id), { body }), ...headers } }),
        ),
      )
      for (const { status } of turn) statuses.set(status, (statuses.get(status) ?? 0) + 1)
      if (sent % 2000 === 0)
        good.push((await send(door, { body, key, headers: { 'X-Forwarded-For': '198.51.100.7' } })).status)
    }
    expect(new Set(good)).toEqual(new Set([202]))
    expect([...statuses.keys()].sort()).toEqual([401, 429])
    // Nothing of it was done but the good ones.
    const after = await stored(house)
    expect(Number(after['tasks']) - Number(before['tasks'])).toBe(good.length)
    await until('all of them are counted', async () => {
      const { signature = '0', blocked = '0' } = await totals()
      return Number(signature) + Number(blocked) === attempts
    })
    // Two kinds, and a row for each minute it went on.
    const [minutes] = await house.sql(`select count(distinct minute)::int as n from tms.security_events`)
    expect(await count('security_events')).toBeLessThanOrEqual(2 * Number(minutes?.['n']))
    expect(await count('security_blocks')).toBe(1)
    expect(calls).toBeLessThan(1500)
    expect(door.logs.length).toBeLessThan(attempts / 2)
  })

  test('a shut out key is refused before its body is read, and told when to come again', async () => {
    const door = await opened({ strangers: { capacity: 100, perSecond: 0 } })
    for (let n = 0; n < 20; n++) await send(door, { body, key: wrong(key.id) })
    await until('it is shut out', async () => (await count('security_blocks')) === 1)
    // From here on it is the list of this process that keeps it out.
    await until('the door knows', async () => (await send(door, { body, key })).headers.connection === 'close')
    const before = await stored(house)
    const refused = await send(door, { body, key })
    expect(JSON.parse(refused.text)).toMatchObject({ error: { code: 'BLOCKED' } })
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
    expect(refused.headers.connection).toBe('close')
    // Larger than the door takes: whoever reads it would say 413.
    expect((await send(door, { body: 'x'.repeat(3 * 1024 * 1024), key }).catch(() => ({ status: 429 }))).status).toBe(
      429,
    )
    expect(await stored(house)).toEqual(before)
    // Another key at the same address works: strangers don't choose who is shut out.
    expect((await send(door, { body, key: other })).status).toBe(202)
    // Nobody is shut out of health checks.
    for (const path of ['/healthz', '/readyz']) expect((await send(door, { method: 'GET', path })).status).toBe(200)
    await until('that it came is counted', async () => Number((await totals())['blocked'] ?? 0) >= 2)
  })

  test('without the look at the list a shut out key still gets nothing: the database asks, too', async () => {
    const blind = {
      ...house.driver,
      call: ((fn, args, options) =>
        fn === 'door_report'
          ? Promise.resolve({ counted: 0, blocks: [] })
          : house.driver.call(fn, args, options)) as typeof house.driver.call,
    }
    const door = await doorOf(house, { keys: () => ringOf(key, other), driver: blind, limits: often })
    await house.sql(
      `insert into tms.security_blocks (kind, source, address, key_id, cause, count, level, since, until)
         values ('key', $1 || '@127.0.0.1', '127.0.0.1', $1, 'signature', 20, 0, tms.now(), tms.now() + interval '1 hour')`,
      [key.id],
    )
    const before = await stored(house)
    const refused = await send(door, { body, key })
    expect([refused.status, JSON.parse(refused.text)]).toMatchObject([429, { error: { code: 'BLOCKED' } }])
    expect(await stored(house)).toEqual(before)
  })

  test('time lets it in again, and so does a super_admin, without a restart', async () => {
    const door = await opened({ strangers: { capacity: 100, perSecond: 0 } })
    const shutOut = async () => {
      for (let n = 0; n < 20; n++) await send(door, { body, key: wrong(key.id) })
      await until('it is shut out', async () => (await count('security_blocks where until > tms.now()')) === 1)
      expect((await send(door, { body, key })).status).toBe(429)
    }
    await shutOut()
    await clock('61 seconds')
    await until('it is let in', async () => (await send(door, { body, key })).status === 202)
    await house.sql('delete from tms.security_known')
    await shutOut()
    await unblock(house.operator, { source: '127.0.0.1', why: 'mended' })
    await until('it is let in', async () => (await send(door, { body, key })).status === 202)
  })

  test('who sends one captured request again and again is counted, and shut out', async () => {
    const door = await opened()
    const headers = sign(key, { body })
    expect((await send(door, { body, headers })).status).toBe(202)
    for (let n = 0; n < 20; n++) expect((await send(door, { body, headers })).status).toBeOneOf([409, 429])
    expect(await count('security_blocks')).toBe(1)
    await until('the door knows', async () => (await send(door, { body, headers })).status === 429)
  })

  /** A whole request, or as much of it as is sent. */
  const raw = (signed: SigningKey, change: (head: string) => string = (head) => head, sent = body) => {
    const lines = ['POST /v1/tasks HTTP/1.1', 'Host: door', 'Connection: close', 'Content-Type: application/json']
    for (const [name, value] of Object.entries(sign(signed, { body }))) lines.push(`${name}: ${value}`)
    lines.push(`Content-Length: ${body.length}`)
    return change(`${lines.join('\r\n')}\r\n\r\n`) + sent
  }
  const stall = { headersMs: 100, requestMs: 150, checkMs: 20 }

  test.each<readonly [what: string, status: number, change: (head: string) => string, sent: string]>([
    ['with a body that stalls', 408, (head) => head, body.slice(0, 10)],
    ['with a body that is announced and never begins', 408, (head) => head, ''],
    ['with a query', 401, (head) => head.replace('/v1/tasks', '/v1/tasks?dry_run=true'), body],
    ['of a wrong media type', 401, (head) => head.replace('application/json', 'text/plain'), body],
    ['of no media type', 401, (head) => head.replace(/Content-Type:.*\r\n/, ''), body],
    ['of a broken media type', 415, (head) => head.replace('application/json', ';'), body],
    ['that is compressed', 401, (head) => head.replace('\r\n\r\n', '\r\nContent-Encoding: gzip\r\n\r\n'), body],
    ['that is too large', 413, (head) => head.replace(/Content-Length: .*/, 'Content-Length: 3000000'), ''],
    ['without a Host', 400, (head) => head.replace('Host: door\r\n', ''), body],
    ['of chunks that are none', 400, (head) => head.replace(/Content-Length: .*/, 'Transfer-Encoding: chunked'), 'zz'],
  ])('a forged request %s is answered with %i, counted once, and leaves nothing', async (_, status, change, sent) => {
    const door = await opened(stall)
    const before = await stored(house)
    const answer = await sendRaw(door, raw(wrong(key.id), change, sent))
    expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
    for (const header of ['strict-transport-security', 'x-frame-options', 'content-security-policy'])
      expect(answer.toLowerCase()).toContain(`\r\n${header}: `)
    await until('it is counted', async () => (await totals())['signature'] !== undefined)
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(await totals()).toEqual({ signature: '1' })
    expect(await stored(house)).toEqual(before)
    const [event] = await house.sql('select address, key_id from tms.security_events')
    expect(event).toEqual({ address: '127.0.0.1', key_id: key.id })
  })

  test('bytes that are no HTTP and half a head are counted; silence, and an unsigned health check, are not', async () => {
    const door = await opened(stall)
    expect(await sendRaw(door)).toMatch(/^HTTP\/1.1 408 /)
    expect((await send(door, { method: 'GET', path: '/healthz' })).status).toBe(200)
    expect(await totals()).toEqual({})
    expect(await sendRaw(door, 'hello\r\n\r\n')).toMatch(/^HTTP\/1.1 400 /)
    expect(await sendRaw(door, 'POST /v1/tasks HTTP/1.1\r\nHo')).toMatch(/^HTTP\/1.1 408 /)
    await until('both are counted', async () => (await totals())['signature'] === '2')
  })

  test('a signed request of a wrong form hears what is wrong, and is no attack', async () => {
    const door = await opened()
    const path = '/v1/tasks?dry_run=true'
    expect((await send(door, { body, path, key })).status).toBe(400)
    expect((await send(door, { body, key, headers: { 'content-type': 'text/plain' } })).status).toBe(415)
    expect((await send(door, { body, key, headers: { 'content-encoding': 'gzip' } })).status).toBe(415)
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(await totals()).toEqual({})
  })

  test('a slow sender whose key works from there is no attacker', async () => {
    const door = await opened(stall)
    expect((await send(door, { body, key })).status).toBe(202)
    for (let n = 0; n < 3; n++) {
      expect(
        await sendRaw(
          door,
          raw(key, (head) => head, body.slice(0, 10)),
        ),
      ).toMatch(/^HTTP\/1.1 408 /)
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(await totals()).toEqual({})
    expect((await send(door, { body, key })).status).toBe(202)
  })

  test('a forged X-Forwarded-For neither hides a source nor shuts out another one', async () => {
    const door = await opened({ strangers: { capacity: 1000, perSecond: 0 } })
    for (let n = 0; n < 25; n++) {
      const headers = { ...sign(wrong(key.id), { body }), 'X-Forwarded-For': `198.51.100.${n}` }
      await send(door, { body, headers })
    }
    await until('it is shut out', async () => (await count('security_blocks')) === 1)
    const [block] = await house.sql('select source from tms.security_blocks')
    expect(block).toEqual({ source: `${key.id}@127.0.0.1` })
    // Behind a trusted proxy what stands left of the proxy's own word is anybody's to write.
    await house.sql('delete from tms.security_blocks')
    await house.sql('delete from tms.security_events')
    const trusting = await doorOf(house, {
      keys: () => ringOf(key, other),
      trustProxy: ['127.0.0.0/8'],
      limits: { ...often, strangers: { capacity: 1000, perSecond: 0 } },
    })
    for (let n = 0; n < 25; n++) {
      const headers = { ...sign(wrong(key.id), { body }), 'X-Forwarded-For': `198.51.100.${n}, 203.0.113.9` }
      await send(trusting, { body, headers })
    }
    await until('it is shut out', async () => (await count('security_blocks')) === 1)
    expect(await house.sql('select source from tms.security_blocks')).toEqual([{ source: `${key.id}@203.0.113.9` }])
    expect((await send(trusting, { body, key, headers: { 'X-Forwarded-For': '198.51.100.1' } })).status).toBe(202)
  })

  test('a thousand made-up keys are one source, and the owner of a real one is served', async () => {
    const door = await opened({ strangers: { capacity: 1000, perSecond: 0 } })
    await Promise.all(
      Array.from({ length: 200 }, () => send(door, { body, key: wrong(randomBytes(8).toString('hex')) })),
    )
    await until('they are counted', async () => (await count('security_blocks')) === 1)
    expect(await house.sql('select kind, source from tms.security_blocks')).toEqual([
      { kind: 'address', source: '127.0.0.1' },
    ])
    await until(
      'strangers are shut out',
      async () => JSON.parse((await send(door, { body })).text).error.code === 'BLOCKED',
    )
    expect((await send(door, { body, key })).status).toBe(202)
  })

  test('what could not be told is told later, and the door serves meanwhile', async () => {
    let broken = true
    const driver = {
      ...house.driver,
      call: ((fn, args, options) =>
        broken && fn === 'door_report'
          ? Promise.reject(new Error('the database is away'))
          : house.driver.call(fn, args, options)) as typeof house.driver.call,
    }
    const door = await doorOf(house, { keys: () => ringOf(key, other), driver, limits: often })
    for (let n = 0; n < 5; n++) await send(door, { body })
    expect((await send(door, { body, key })).status).toBe(202)
    await until('it says so', () => door.logs.some(({ message }) => message.includes('could not be counted')))
    expect(await totals()).toEqual({})
    broken = false
    await until('they are counted', async () => (await totals())['signature'] === '5')
  })
})
