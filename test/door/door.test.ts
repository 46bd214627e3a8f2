import { readFile } from 'node:fs/promises'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { granted } from '../../src/drivers/refusal.ts'
import { signRequest } from '../../src/signing/request.ts'
import { sqlFolder } from '../servers/schema.ts'
import { until } from '../servers/process.ts'
import {
  doorOf,
  neverShutOut,
  houses,
  ringOf,
  send,
  sign,
  stored,
  tasks,
  type House,
  type Request,
  type Sent,
  type SigningKey,
} from './house.ts'

const sources = new Map([
  ['carrier', { function: 'demo.two', tenant: 'acme', key: 'deliveryId', priority: 0 }],
  ['plain', { function: 'demo.two', tenant: 'acme', key: null, priority: 0 }],
])

describe.each(Object.entries(houses))('the door before %s', (_, open) => {
  let house: House
  let n8n: SigningKey
  let dlq: SigningKey
  let ci: SigningKey
  let member: SigningKey
  beforeAll(async () => {
    house = await open()
    // Everybody here comes from one address, and shutting out is test/security's subject.
    await neverShutOut(house)
    n8n = await house.key('n8n')
    dlq = await house.key('dlq')
    ci = await house.key('ci')
    member = await memberOfGlobex(house)
  })
  afterAll(() => house.stop())
  beforeEach(async () => {
    await house.sql('delete from tms.edge_rate_limits')
  })

  const everybody = () => ringOf(n8n, dlq, ci, member)
  const opened = () => doorOf(house, { keys: everybody, sources })

  test('a signed request becomes tasks of its tenant', async () => {
    const door = await opened()
    const before = await stored(house)
    const sent = await send(door, { body: tasks(), key: n8n })
    expect([sent.status, sent.text]).toEqual([202, expect.stringMatching(/^\{"ids":\["\d+"\]\}$/)])
    const after = await stored(house)
    expect(Number(after['tasks']) - Number(before['tasks'])).toBe(1)
    const [task] = await house.sql(
      `select fn_name, payload ->> 'load' as load, tms._tenant_key(company_id) as tenant from tms.agent_tasks order by id desc limit 1`,
    )
    expect(task).toEqual({ fn_name: 'demo.one', load: 'L1', tenant: 'acme' })
  })

  test('a member of one tenant may ask for that tenant', async () => {
    const door = await opened()
    expect((await send(door, { body: tasks('globex'), key: member })).status).toBe(202)
  })

  test('what is refused stores nothing, tells nothing, and the next good request is served', async () => {
    const door = await opened()
    const other = { id: n8n.id, secret: 'x'.repeat(43) }
    const minutes = (n: number) => new Date(Date.now() + n * 60_000)
    const body = tasks()
    const signed = sign(n8n, { body })
    const hostile: readonly (readonly [what: string, status: number, request: Request])[] = [
      ['no signature', 401, { body }],
      ['another secret', 401, { body, key: other }],
      ['an unknown key', 401, { body, key: { id: 'nobody', secret: n8n.secret } }],
      ['too old', 401, { body, key: n8n, at: minutes(-6) }],
      ['from the future', 401, { body, key: n8n, at: minutes(6) }],
      ['another body than was signed', 401, { body: tasks('globex'), headers: signed }],
      ['another path than was signed', 401, { body, path: '/v1/dlq/replay', headers: signed }],
      [
        'two signatures in two headers',
        401,
        { body, headers: { ...signed, 'X-Transbot-Signature': ['v2=' + 'a'.repeat(64), 'v2=' + 'b'.repeat(64)] } },
      ],
      ['two nonces', 401, { body, headers: { ...signed, 'X-Transbot-Nonce': ['a'.repeat(24), 'b'.repeat(24)] } }],
      ['a query', 400, { body, path: '/v1/tasks?dry_run=true', key: n8n }],
      ['no JSON', 400, { body: '{"tenant":', key: n8n }],
      ['nothing at all', 400, { body: '', key: n8n }],
      ['no UTF-8', 400, { body: Buffer.from([0x22, 0xff, 0x22]), key: n8n }],
      ['a tower of brackets', 400, { body: '['.repeat(500_000), key: n8n }],
      ['an unknown field', 400, { body: JSON.stringify({ tenant: 'acme', tasks: [], admin: true }), key: n8n }],
      [
        'a zero character',
        400,
        { body: JSON.stringify({ tenant: 'acme', tasks: [{ function: 'demo.one', payload: { a: '\0' } }] }), key: n8n },
      ],
      ['another type', 415, { body, key: n8n, headers: { 'content-type': 'text/plain' } }],
      ['compressed', 415, { body, key: n8n, headers: { 'content-encoding': 'gzip' } }],
      ['3 MB', 413, { body: 'x'.repeat(3 * 1024 * 1024), key: n8n }],
      ['an unknown tenant', 404, { body: tasks('nobody'), key: n8n }],
      ["another's tenant", 404, { body: tasks('acme'), key: member }],
      ['an unknown tenant of a member', 404, { body: tasks('nobody'), key: member }],
      ['a key that may not', 403, { body, key: ci }],
      ['a replay by a key that may not', 403, { path: '/v1/dlq/replay', body: replay(['1']), key: n8n }],
      ['an unknown source', 404, { path: '/v1/webhooks/other', body: '{}', key: n8n }],
      ['a long name of a source', 404, { path: `/v1/webhooks/${'a'.repeat(101)}`, body: '{}', key: n8n }],
      ['a number that would be another', 400, { path: '/v1/webhooks/plain', body: '[1e400]', key: n8n }],
      ['a webhook without its event key', 400, { path: '/v1/webhooks/carrier', body: '{}', key: n8n }],
      ['an unknown route', 404, { path: '/v2/tasks', body, key: n8n }],
      ['another method', 405, { method: 'PUT', body, key: n8n }],
    ]
    const before = await stored(house)
    const answers: Sent[] = []
    for (const [what, status, request] of hostile) {
      const sent = await send(door, request)
      answers.push(sent)
      expect([what, sent.status, sent.text.slice(0, 10)]).toEqual([what, status, '{"error":{'])
      expect([what, sent.headers]).toEqual([what, expect.objectContaining(secure)])
      expect([what, await stored(house)]).toEqual([what, before])
    }
    const body401 = new Set(answers.filter(({ status }) => status === 401).map(({ text }) => text))
    expect(body401.size).toBe(1)
    const texts = (wanted: string) => answers[hostile.findIndex(([what]) => what === wanted)]?.text
    expect(texts("another's tenant")).toBe(texts('an unknown tenant of a member'))

    // The function is judged with the task, so the nonce is used; no task is made.
    const denied = await send(door, { body: tasks('acme', 'other.thing'), key: n8n })
    expect(denied.status).toBe(403)
    expect(await stored(house)).toMatchObject({ tasks: before['tasks'] })

    const said = JSON.stringify([answers, denied, door.logs])
    for (const { secret } of [n8n, dlq, ci, member]) expect(said).not.toContain(secret)
    expect(said).not.toContain(String(signed['X-Transbot-Signature']))
    expect(said).not.toMatch(/\bat .*\.ts:\d+|tms\._|postgres|PGlite/i)
    expect((await send(door, { body, key: n8n })).status).toBe(202)
  })

  test('a key that the database ended is refused, whatever this host still holds', async () => {
    const door = await opened()
    const [ended, revoked, changed] = [
      await house.key('autopilot'),
      await house.key('autopilot'),
      await house.key('autopilot'),
    ]
    await house.sql(`update tms.logins set expires_at = now() - interval '1 s' where name = $1`, [ended.id])
    await house.sql(`update tms.logins set revoked_at = now() where name = $1`, [revoked.id])
    await house.sql(`update tms.logins set secret_sha256 = repeat('a', 64) where name = $1`, [changed.id])
    const before = await stored(house)
    const other = await doorOf(house, { keys: () => ringOf(ended, revoked, changed) })
    for (const key of [ended, revoked, changed]) {
      expect((await send(other, { body: tasks(), key })).status).toBe(401)
    }
    expect(await stored(house)).toEqual(before)
    expect((await send(door, { body: tasks(), key: n8n })).status).toBe(202)
  })

  test('both keys work while one replaces the other', async () => {
    const [old, fresh] = [await house.key('autopilot'), await house.key('autopilot')]
    const door = await doorOf(house, { keys: () => ringOf(old, fresh) })
    expect((await send(door, { body: tasks(), key: old })).status).toBe(202)
    expect((await send(door, { body: tasks(), key: fresh })).status).toBe(202)
  })

  test("a door with a wrong clock lets nothing old in: the database's clock is asked too", async () => {
    const clock = () => new Date(Date.now() - 20 * 60_000)
    const door = await doorOf(house, { keys: everybody, clock })
    const before = await stored(house)
    expect((await send(door, { body: tasks(), key: n8n, at: clock() })).status).toBe(401)
    expect(await stored(house)).toEqual(before)
  })

  test('a nonce works once: again, at once, and under another key', async () => {
    const door = await opened()
    const second = await doorOf(house, { keys: everybody })
    const before = Number((await stored(house))['tasks'])
    const body = tasks()
    const headers = sign(n8n, { body })
    // Two doors, so that no memory of one process decides.
    const at = await Promise.all(
      Array.from({ length: 16 }, (_unused, i) => send(i % 2 === 0 ? door : second, { body, headers })),
    )
    expect(at.map(({ status }) => status).sort()).toEqual([202, ...Array.from({ length: 15 }, () => 409)])
    expect((await send(door, { body, headers })).status).toBe(409)
    // Signed for a rotation, with two secrets: the key id is not signed, so it can be exchanged on the way.
    const both = signRequest({
      keyId: n8n.id,
      secret: [n8n.secret, member.secret],
      method: 'POST',
      path: '/v1/tasks',
      body: tasks('globex'),
      now: new Date(),
      nonce: Buffer.from(randomUUID()),
    })
    expect((await send(second, { body: tasks('globex'), headers: { ...both } })).status).toBe(202)
    const exchanged = { ...both, 'X-Transbot-Key': member.id }
    expect((await send(door, { body: tasks('globex'), headers: exchanged })).status).toBe(409)
    expect(Number((await stored(house))['tasks']) - before).toBe(2)
  })

  test('without the check of nonces the same request works twice', async () => {
    await patched(
      house,
      [
        [`n.nonce = args ->> 'nonce' and n.key_id = '*'`, 'false'],
        [`args ->> 'nonce', clock_timestamp() +`, `gen_random_uuid()::text, clock_timestamp() +`],
      ],
      async () => {
        const door = await opened()
        const headers = sign(n8n, { body: tasks() })
        const before = Number((await stored(house))['tasks'])
        await send(door, { body: tasks(), headers })
        expect((await send(door, { body: tasks(), headers })).status).toBe(202)
        // The second line: the work has the same request id, and answers as before.
        expect(Number((await stored(house))['tasks']) - before).toBe(1)
      },
    )
  })

  test.each(['tenant', 'key', 'address'])('exactly as many get in as the %s has left in this minute', async (kind) => {
    const door = await opened()
    const [row] = await house.sql(`select id from tms.companies where key = 'acme'`)
    const who = { tenant: String(row?.['id']), key: n8n.id, address: '127.0.0.1' }[kind] ?? ''
    await leave(house, kind, who, 7)
    const before = await stored(house)
    const sent = await Promise.all(Array.from({ length: 25 }, () => send(door, { body: tasks(), key: n8n })))
    const statuses = sent.map(({ status }) => status)
    expect(statuses.filter((status) => status === 202)).toHaveLength(7)
    expect(statuses.filter((status) => status === 429)).toHaveLength(18)
    expect(Number(sent.find(({ status }) => status === 429)?.headers['retry-after'])).toBeGreaterThan(0)
    const after = await stored(house)
    expect(Number(after['tasks']) - Number(before['tasks'])).toBe(7)
    expect(Number(after['nonces']) - Number(before['nonces'])).toBe(7)
  })

  test('without the limit in the statement that counts more get in', async () => {
    await patched(house, [['where r.used < most', '']], async () => {
      const door = await opened()
      await leave(house, 'key', n8n.id, 2)
      const sent = await Promise.all(Array.from({ length: 6 }, () => send(door, { body: tasks(), key: n8n })))
      expect(sent.filter(({ status }) => status === 202).length).toBeGreaterThan(2)
    })
  })

  test('a flood of unsigned requests uses up nothing of anybody, and few calls', async () => {
    // A clock that stands still: what is let in again by time is not what this is about, however long it takes.
    const arrived = new Date()
    const door = await doorOf(house, { keys: everybody, sources, clock: () => arrived })
    const before = await stored(house)
    const body = tasks()
    const bad = { id: n8n.id, secret: 'y'.repeat(43) }
    const sent = await Promise.all(
      Array.from({ length: 200 }, (_unused, i) => send(door, i % 2 === 0 ? { body } : { body, key: bad })),
    )
    expect(new Set(sent.map(({ status }) => status))).toEqual(new Set([401, 429]))
    expect(sent.filter(({ status }) => status === 401).length).toBeLessThanOrEqual(30)
    await until('the knocks are counted', async () => (await knocks(house)) > 0)
    expect(await knocks(house)).toBeLessThanOrEqual(20)
    expect(await stored(house)).toEqual(before)
    const [counted] = await house.sql(
      `select count(*)::int as n from tms.edge_rate_limits where subject not like 'knock:%'`,
    )
    expect(counted).toEqual({ n: 0 })
    // Somebody behind the same address still gets in.
    expect((await send(door, { body, key: n8n })).status).toBe(202)
    expect(door.logs.length).toBeLessThan(100)
  })

  test('a name longer than any source makes nobody less of a stranger', async () => {
    const door = await opened()
    const path = `/v1/webhooks/${'a'.repeat(101)}`
    const sent: number[] = []
    for (let i = 0; i < 40; i += 1) sent.push((await send(door, { path })).status)
    expect([new Set(sent), sent.at(-1)]).toEqual([new Set([401, 429]), 429])
    expect(JSON.stringify(door.logs)).not.toContain('aaaa')
  })

  test('an address beyond its knocks is known to every door', async () => {
    await leave(house, 'knock', '127.0.0.1', 0)
    const door = await opened()
    expect((await send(door, { body: tasks() })).status).toBe(401)
    await until('the database has said it', async () => (await send(door, { body: tasks() })).status === 429)
  })

  test('a webhook becomes one task of its function, however often it is sent', async () => {
    const door = await opened()
    const body = JSON.stringify({ deliveryId: randomUUID(), status: 'delivered' })
    const path = '/v1/webhooks/carrier'
    const first = await send(door, { path, body, key: n8n })
    const again = await send(door, { path, body, key: n8n })
    expect([first.status, again.status]).toEqual([202, 202])
    expect(again.text).toBe(first.text)
    const id: unknown = JSON.parse(first.text).id
    const [task] = await house.sql(
      `select fn_name, payload, tms._tenant_key(company_id) as tenant from tms.agent_tasks where id = $1::text::bigint`,
      [id],
    )
    expect(task).toEqual({ fn_name: 'demo.two', payload: JSON.parse(body), tenant: 'acme' })
    expect((await send(door, { path: '/v1/webhooks/plain', body: '[1]', key: n8n })).status).toBe(202)
    expect((await send(door, { path, body, key: dlq })).status).toBe(403)
  })

  test('a replay does what its dry run showed, and nothing else', async () => {
    const door = await opened()
    const path = '/v1/dlq/replay'
    const [mine, theirs] = [await bury(house, 'acme'), await bury(house, 'globex')]
    const dry = (ids: string[]) => JSON.stringify({ tenant: 'acme', dry_run: true, ids })
    const planned = await send(door, { path, body: dry([mine]), key: dlq })
    expect(planned.status).toBe(200)
    const plan = String(JSON.parse(planned.text).plan)
    expect(JSON.parse(planned.text).items).toMatchObject([{ id: mine }])

    const before = await stored(house)
    const unseen = await send(door, { path, body: replay([mine], '0'.repeat(12)), key: dlq })
    expect(unseen.status).toBe(409)
    // Another tenant's letter and one that is not there: the same answer, in the dry run and in the execution.
    const pairs = await Promise.all(
      [theirs, '999999999'].flatMap((id) => [
        send(door, { path, body: dry([id]), key: dlq }),
        send(door, { path, body: replay([id], plan), key: dlq }),
      ]),
    )
    const [dryTheirs, runTheirs, dryNone, runNone] = pairs
    expect([dryTheirs?.text, runTheirs?.text, runTheirs?.status]).toEqual([dryNone?.text, runNone?.text, 409])
    expect(await stored(house)).toMatchObject({
      tasks: before['tasks'],
      replays: before['replays'],
      letters: before['letters'],
    })

    const done = await send(door, { path, body: replay([mine], plan), key: dlq })
    expect([done.status, JSON.parse(done.text).items]).toEqual([202, [{ id: mine, task: expect.any(String) }]])
    expect(await stored(house)).toMatchObject({ replays: Number(before['replays']) + 1 })
    const budget = { request_id: randomUUID(), key: 'budget.replay.itemsPerDay', level: 'global', value: 1 } as const
    granted(await house.operator.call('flags_set', { ...budget, why: 'the test says so' }))
    const next = await bury(house, 'acme')
    const { plan: another } = JSON.parse((await send(door, { path, body: dry([next]), key: dlq })).text)
    const over = await send(door, { path, body: replay([next], String(another)), key: dlq })
    const midnight = (86_400_000 - (Date.now() % 86_400_000)) / 1000
    expect([over.status, JSON.parse(over.text).error.code]).toEqual([429, 'REPLAY_LIMIT'])
    expect(Math.abs(Number(over.headers['retry-after']) - midnight)).toBeLessThan(30)
    granted(await house.operator.call('flags_set', { ...budget, request_id: randomUUID(), value: 150, why: 'over' }))

    const [row] = await house.sql(
      `select who, body::jsonb ->> 'account' as account, body::jsonb ->> 'key' as key from tms.ledger_inbox where action = 'door.admit' order by id desc limit 1`,
    )
    expect(row).toMatchObject({ account: 'dlq', key: dlq.id })
  })

  test('while the fleet is halted nothing is put in, and the answer says so', async () => {
    const door = await opened()
    granted(await house.operator.call('fence_halt', { why: 'the test says so' }))
    try {
      const before = Number((await stored(house))['tasks'])
      const sent = await send(door, { body: tasks(), key: n8n })
      expect([sent.status, JSON.parse(sent.text).error.code]).toEqual([423, 'FENCED'])
      expect(Number((await stored(house))['tasks'])).toBe(before)
      expect((await send(door, { method: 'GET', path: '/readyz' })).status).toBe(200)
    } finally {
      for (const step of ['prepare', 'lift'] as const) {
        const lift = { request_id: randomUUID(), step, why: 'the test is over' }
        granted(await house.operator.call('fence_resume', lift))
      }
    }
    expect((await send(door, { body: tasks(), key: n8n })).status).toBe(202)
  })

  test('metrics say what happened and the state of the fleet, and name nobody', async () => {
    const door = await opened()
    await send(door, { body: tasks(), key: n8n })
    await send(door, { body: tasks() })
    const { status, text, headers } = await send(door, { method: 'GET', path: '/metrics' })
    expect([status, headers['content-type']]).toEqual([200, expect.stringContaining('application/openmetrics-text')])
    expect(text).toContain('tms_door_requests_total{route="tasks",status="202"} 1')
    expect(text).toContain('tms_door_refused_total{reason="missing"} 1')
    expect(text).toContain('tms_fleet_readable 1')
    expect(text).toContain('tms_fleet_halted 0')
    expect(text).toMatch(/^tms_tasks_waiting\{agent="demo"\} \d+$/m)
    expect(text.endsWith('# EOF\n')).toBe(true)
    expect(text.match(/# EOF/g)).toHaveLength(1)
    expect(text).not.toMatch(/acme|globex|127\.0\.0\.1|n8n/)
  })
})

const secure = {
  'strict-transport-security': expect.stringContaining('max-age='),
  'x-frame-options': 'DENY',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'permissions-policy': expect.any(String),
  'content-security-policy': expect.stringContaining("default-src 'none'"),
}

const replay = (ids: string[], plan = 'a'.repeat(12)) =>
  JSON.stringify({ tenant: 'acme', ids, plan, why: 'the cause is fixed' })

async function knocks(house: House): Promise<number> {
  const [row] = await house.sql(
    `select coalesce(sum(used), 0)::int as n from tms.edge_rate_limits where subject like 'knock:%'`,
  )
  return Number(row?.['n'])
}

/** So much is left of the limit in this minute and the next, whichever it is when the requests come. */
async function leave(house: House, kind: string, who: string, left: number): Promise<void> {
  // What is left of this minute isn't what is left of the next.
  await until('a minute that lasts', () => new Date().getUTCSeconds() < 40)
  await house.sql(
    `insert into tms.edge_rate_limits (subject, minute, used)
       select $1 || ':' || $2, date_trunc('minute', clock_timestamp()) + n * interval '1 minute', tms._door_rate($1) - $3::int
         from generate_series(0, 1) n
       on conflict (subject, minute) do update set used = excluded.used`,
    [kind, who, left],
  )
}

/** The database without one of its protections, while `work` runs. */
async function patched(
  house: House,
  changes: readonly (readonly [string, string])[],
  work: () => Promise<void>,
): Promise<void> {
  const text = await readFile(join(sqlFolder, 'functions/44_door.sql'), 'utf8')
  const weak = changes.reduce((all, [from, to]) => {
    expect(all).toContain(from)
    return all.replace(from, to)
  }, text)
  await house.sql(`begin; ${weak}; commit`)
  try {
    await work()
  } finally {
    await house.sql(`begin; ${text}; commit`)
  }
}

/** A machine that is a member of one tenant: what no account of ours is, and a database may have. */
async function memberOfGlobex(house: House): Promise<SigningKey> {
  const key = { id: `member-${randomUUID().slice(0, 8)}`, secret: randomUUID() + randomUUID() }
  await house.sql(
    `with p as (insert into tms.principals (kind, name) values ('service', $1) returning id),
          m as (insert into tms.memberships (principal_id, role, company_id)
                  select p.id, 'dispatcher', c.id from p, tms.companies c where c.key = 'globex' returning 1)
     insert into tms.logins (principal_id, kind, name, secret_sha256, expires_at)
       select p.id, 'key', $1, encode(sha256(convert_to($2, 'UTF8')), 'hex'), now() + interval '1 day' from p`,
    [key.id, key.secret],
  )
  return key
}

/** A dead letter, as it lies there after its task failed for good. */
async function bury(house: House, tenant: string): Promise<string> {
  const [row] = await house.sql(
    `insert into tms.dead_letter_queue (task_id, company_id, agent, fn_name, payload, bytes, error_class, error, attempts)
       select (random() * 1000000000)::bigint, c.id, 'demo', 'demo.one', '{}', 2, 'bug', 'it broke', 3 from tms.companies c where c.key = $1
     returning id::text as id`,
    [tenant],
  )
  return String(row?.['id'])
}
