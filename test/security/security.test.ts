import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Driver } from '../../src/drivers/driver.ts'
import { granted } from '../../src/drivers/refusal.ts'
import { listBlocks, listEvents, reportBrokenLedger, unblock } from '../../src/security/security.ts'
import { sqlBeside, subjects } from '../contract/subjects.ts'
import { readyFleet, type Fleet } from '../fleet/fleet.ts'

/** What is counted, who is shut out for it and who isn't, on each database. */

const here = '203.0.113.9'
const elsewhere = '198.51.100.7'

/** There all who attach while an owner lives are that owner; the walk of permissions tries the others, one after another. */
const onlyOwner = (name: string) => name === 'embedded'

describe.each(Object.entries(subjects))('through the %s driver', (name, make) => {
  let fleet: Fleet
  let door: Driver
  let operator: Driver
  const secret = randomBytes(32).toString('base64url')
  const keySha256 = createHash('sha256').update(secret).digest('hex')
  const key = `n8n-${randomUUID().slice(0, 8)}`

  beforeAll(async () => {
    fleet = await readyFleet(await make())
    operator = fleet.operator
    door = await fleet.subject.as(await fleet.subject.account('n8n'))
    const rotation = { account: 'n8n', kind: 'key', name: key, secret_sha256: keySha256, overlap_seconds: 0 } as const
    granted(await operator.call('accounts_rotate', { request_id: randomUUID(), ...rotation }))
  })
  afterAll(async () => {
    await door.close()
    await fleet.stop()
  })
  beforeEach(async () => {
    await clock('0')
    for (const table of ['security_events', 'security_blocks', 'security_known', 'edge_rate_limits', 'refusals'])
      await sql(`delete from tms.${table}`)
  })

  const sql = (text: string) => sqlBeside(fleet.subject, fleet.operator)(text)
  const clock = (offset: string) =>
    sql(
      `create or replace function tms.now() returns timestamptz language sql stable as $$ select pg_catalog.now() + interval '${offset}' $$`,
    )
  type Reported = { readonly address?: string; readonly key_id?: string; readonly kind?: 'signature' | 'blocked' }
  const report = async (count: number, { address = here, key_id = '', kind = 'signature' }: Reported = {}) =>
    granted(await door.call('door_report', { events: [{ kind, address, key_id, reason: 'mismatch', count }] }))
  const admit = (
    change: { nonce?: string; address?: string; key_id?: string; operation?: 'task.enqueue' | 'dlq.replay' } = {},
  ) =>
    door.call('door_admit', {
      request_id: randomUUID(),
      key_id: key,
      key_sha256: keySha256,
      nonce: randomBytes(18).toString('base64url'),
      timestamp: Math.floor(Date.now() / 1000),
      address: here,
      tenant: 'acme',
      operation: 'task.enqueue',
      ...change,
    })
  const codeOf = (answer: object) =>
    'refused' in answer ? (answer as { refused: { code: string } }).refused.code : 'admitted'
  const rows = async () => Number((await sql('select count(*)::int as n from tms.security_events'))[0]?.['n'])

  test('a flood of one source is one row a minute, however it is reported', async () => {
    for (let turn = 0; turn < 20; turn++) await report(500)
    // At most two: the flood may have gone over the end of a minute.
    expect(await rows()).toBeLessThanOrEqual(2)
    expect((await listEvents(operator, { minutes: 5, limit: 10 })).totals).toEqual({ signature: '10000' })
  })

  test('a flood of many sources is a thousand rows a minute and one for the rest', async () => {
    const all = Array.from({ length: 2500 }, (_unused, n) => ({
      kind: 'signature' as const,
      address: `10.${Math.floor(n / 65_536)}.${Math.floor(n / 256) % 256}.${n % 256}`,
      key_id: '',
      reason: 'missing',
      count: 30,
    }))
    for (let at = 0; at < all.length; at += 500)
      granted(await door.call('door_report', { events: all.slice(at, at + 500) }))
    expect(await rows()).toBeLessThanOrEqual(2 * 1001)
    const [most] = await sql(
      'select max(n)::int as n from (select count(*) as n from tms.security_events group by minute) x',
    )
    expect(Number(most?.['n'])).toBeLessThanOrEqual(1001)
    const { totals } = await listEvents(operator, { minutes: 5, limit: 10 })
    expect(totals).toEqual({ signature: '75000' })
    // The rest is nobody in particular, and is not shut out as one.
    expect(await sql(`select from tms.security_blocks where address = '*'`)).toEqual([])
    // A thousand blocks are one message in ten minutes.
    const [told] = await sql(`select count(*)::int as n from tms.outbox_events where topic = 'security.blocked'`)
    expect(Number(told?.['n'])).toBeLessThanOrEqual(2)
  })

  test('an address is shut out at the threshold and not before, and let in by time alone', async () => {
    expect((await report(19)).blocks).toEqual([])
    expect((await report(1)).blocks).toEqual([{ address: here, key_id: null, seconds: expect.closeTo(60, -1) }])
    await clock('61 seconds')
    expect(granted(await door.call('door_report', { events: [] })).blocks).toEqual([])
  })

  test('what lies further apart than five minutes shuts nobody out', async () => {
    await report(19)
    await clock('6 minutes')
    expect((await report(19)).blocks).toEqual([])
  })

  test('each time takes twice as long as the one before, to a limit, and a quiet day makes it the first again', async () => {
    const seconds: number[] = []
    let now = 0
    for (let turn = 0; turn < 4; turn++) {
      const [block] = (await report(20)).blocks
      seconds.push(block?.seconds ?? 0)
      now += (block?.seconds ?? 0) + 1
      await clock(`${now} seconds`)
    }
    expect(seconds).toEqual([60, 120, 240, 480])
    await fleet.set('security.block.longest', 600)
    expect((await report(20)).blocks[0]?.seconds).toBe(600)
    await fleet.set('security.block.longest', 86_400)
    await clock(`${now + 2 * 86_400} seconds`)
    expect((await report(20)).blocks[0]?.seconds).toBe(60)
  })

  test('what comes while a source is shut out makes it no longer', async () => {
    await report(20)
    await report(19)
    await report(500, { kind: 'blocked' })
    await clock('61 seconds')
    expect(granted(await door.call('door_report', { events: [] })).blocks).toEqual([])
    expect((await report(19)).blocks).toEqual([])
  })

  test('a key whose id a stranger writes down is shut out at the stranger and nowhere else', async () => {
    await report(20, { address: elsewhere, key_id: key })
    expect(codeOf(await admit({ address: elsewhere }))).toBe('BLOCKED')
    expect(codeOf(await admit())).toBe('admitted')
  })

  test('a shut out key gets nothing done, and nothing it sends is used up', async () => {
    await report(20, { key_id: key })
    const nonce = randomBytes(18).toString('base64url')
    expect(codeOf(await admit({ nonce }))).toBe('BLOCKED')
    expect(await sql(`select from tms.edge_nonces where nonce = '${nonce}'`)).toEqual([])
    expect(await sql(`select from tms.edge_rate_limits where subject like 'tenant:%'`)).toEqual([])
    await clock('61 seconds')
    expect(codeOf(await admit({ nonce }))).toBe('admitted')
  })

  test('who works from an address is not shut out by wrong signatures that others there send in its name', async () => {
    expect(codeOf(await admit())).toBe('admitted')
    expect((await report(5000, { key_id: key })).blocks).toEqual([])
    expect(codeOf(await admit())).toBe('admitted')
    // That is so for a day.
    await clock('25 hours')
    expect((await report(20, { key_id: key })).blocks).toHaveLength(1)
  })

  test('without that rule the owner would be shut out', async () => {
    const [before] = await sql(
      `select pg_get_functiondef(oid) as text from pg_proc where proname = '_security_count' and pronamespace = 'tms'::regnamespace`,
    )
    const text = String(before?.['text'])
    const off = text.replace(`kind = 'signature' and exists`, `false and exists`)
    expect(off).not.toBe(text)
    await sql(off)
    try {
      await admit()
      await report(20, { key_id: key })
      expect(codeOf(await admit())).toBe('BLOCKED')
    } finally {
      await sql(text)
    }
  })

  test('ids of keys that never were are one source, and not one row each', async () => {
    for (let n = 0; n < 25; n++) await report(1, { key_id: `made-up-${n}` })
    expect(await rows()).toBeLessThanOrEqual(2)
    expect(granted(await door.call('door_report', { events: [] })).blocks).toMatchObject([
      { address: here, key_id: null },
    ])
    // The address' strangers are shut out, and a key that is one works.
    expect(codeOf(await admit())).toBe('admitted')
  })

  test('ten repeats of a request shut its key out where they came from', async () => {
    const nonce = randomBytes(18).toString('base64url')
    expect(codeOf(await admit({ nonce }))).toBe('admitted')
    const codes = []
    for (let n = 0; n < 11; n++) codes.push(codeOf(await admit({ nonce })))
    expect(codes).toEqual([...Array.from({ length: 10 }, () => 'NONCE_REUSED'), 'BLOCKED'])
    expect(codeOf(await admit({ address: elsewhere }))).toBe('admitted')
    expect((await listEvents(operator, { minutes: 5, limit: 10 })).totals).toEqual({ nonce: '10', blocked: '1' })
  })

  test('a threshold of zero shuts nobody out', async () => {
    await fleet.set('security.block.signatures', 0)
    expect((await report(100_000)).blocks).toEqual([])
    await fleet.set('security.block.signatures', 20)
  })

  test('denied roles and rates at the door are counted once, with their source, and refusals inside without one', async () => {
    await admit({ operation: 'dlq.replay' })
    await door.call('flags_list', {})
    const { totals, events } = await listEvents(operator, { minutes: 5, limit: 10 })
    expect(totals).toEqual({ role: '2' })
    expect(events).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ kind: 'role', address: here, key, who: null, reason: 'dlq.replay' }),
        expect.objectContaining({
          kind: 'role',
          address: null,
          who: 'n8n',
          function: 'flags_list',
          reason: 'ROLE_DENIED',
        }),
      ]),
    )
  })

  test.skipIf(onlyOwner(name))(
    `a person who is denied too often is shut out of all but stopping; a machine is not, and a super_admin is not${onlyOwner(name) ? ': skipped, its folder has one person' : ''}`,
    async () => {
      await fleet.set('security.block.refusals', 3)
      const named = await fleet.subject.credential('ann')
      granted(
        await operator.call('users_grant', {
          request_id: randomUUID(),
          principal: `ann-${key}@acme`,
          role: 'viewer',
          tenant: 'acme',
          credential: named,
        }),
      )
      const ann = await fleet.subject.as(named.name)
      const denied = (driver: Driver) => driver.call('tenants_add', { request_id: randomUUID(), key: 'x', name: 'x' })
      try {
        for (let n = 0; n < 3; n++) expect(codeOf(await denied(ann))).toBe('ROLE_DENIED')
        expect(codeOf(await denied(ann))).toBe('BLOCKED')
        expect(codeOf(await ann.call('flags_list', { tenant: 'acme' }))).toBe('BLOCKED')
        // Asked for as for everybody: by role, and by nothing else.
        expect(codeOf(await ann.call('fence_halt', { why: 'x' }))).toBe('ROLE_DENIED')
        expect(codeOf(await ann.call('whoami', {}))).toBe('admitted')
        for (let n = 0; n < 6; n++) expect(codeOf(await denied(door))).toBe('ROLE_DENIED')
        const { blocks } = await listBlocks(operator, { all: false, limit: 10 })
        expect(blocks).toMatchObject([{ kind: 'principal', source: `ann-${key}@acme`, cause: 'role', active: true }])
        // The one who is shut out can't lift it; a super_admin can, by name.
        expect(codeOf(await ann.call('security_unblock', { request_id: randomUUID(), source: here, why: 'x' }))).toBe(
          'BLOCKED',
        )
        expect(await unblock(operator, { source: `ann-${key}@acme`, why: 'a script, mended' })).toMatchObject({
          lifted: 1,
        })
        expect(codeOf(await ann.call('flags_list', { tenant: 'acme' }))).toBe('admitted')
      } finally {
        await fleet.set('security.block.refusals', 2000)
        await ann.close()
      }
    },
  )

  test('a blocked super_admin could still stop the fleet: a halt does not even look', async () => {
    const [me] = await sql(
      `select l.principal_id::text as id from tms.logins l join tms.memberships m using (principal_id) where m.role = 'super_admin'`,
    )
    await sql(`insert into tms.security_blocks (kind, source, principal_id, cause, count, level, since, until)
      select 'principal', x.id::text, x.id, 'role', 1, 0, now(), now() + interval '1 hour' from (select distinct principal_id as id from tms.memberships where role = 'super_admin') x`)
    expect(me).toBeDefined()
    expect(codeOf(await operator.call('flags_list', {}))).toBe('BLOCKED')
    const halted = await operator.call('fence_halt', { why: 'a test', grace_ms: 0 })
    await sql('delete from tms.security_blocks')
    for (const step of ['prepare', 'lift'] as const)
      granted(await operator.call('fence_resume', { request_id: randomUUID(), step, why: 'over' }))
    expect(halted).toMatchObject({ fenced: true })
  })

  test('lifting is for a super_admin, lets in at once, and makes the next time a first one', async () => {
    await report(20, { key_id: key })
    await clock('61 seconds')
    await report(20, { key_id: key })
    expect(codeOf(await door.call('security_unblock', { request_id: randomUUID(), source: here, why: 'x' }))).toBe(
      'ROLE_DENIED',
    )
    expect(await unblock(operator, { source: `${key}@${here}`, why: 'mended' })).toEqual({
      source: `${key}@${here}`,
      lifted: 1,
    })
    expect(codeOf(await admit())).toBe('admitted')
    await expect(unblock(operator, { source: here, why: 'again' })).rejects.toMatchObject({ code: 'NOT_FOUND' })
    // How often it was shut out stays to be read.
    expect(await listBlocks(operator, { all: true, limit: 10 })).toMatchObject({
      blocks: [{ times: 2, active: false }],
    })
    await sql('delete from tms.security_known')
    await clock('62 seconds')
    expect((await report(20, { key_id: key })).blocks[0]?.seconds).toBe(60)
    const { blocks } = await listBlocks(operator, { all: true, limit: 10 })
    expect(blocks).toMatchObject([{ kind: 'key', source: `${key}@${here}`, times: 1, active: true }])
  })

  test.skipIf(onlyOwner(name))(
    `a tenant sees what concerns it and nothing of strangers, and the redacted see no address${onlyOwner(name) ? ': skipped, its folder has one person' : ''}`,
    async () => {
      await report(20)
      await report(1, { key_id: key })
      const made: Driver[] = []
      for (const [role, tenant] of [
        ['tenant_admin', 'acme'],
        ['developer', undefined],
      ] as const) {
        const credential = await fleet.subject.credential(role)
        const grant = { request_id: randomUUID(), principal: `${role}-${key}@x`, role, credential }
        granted(await operator.call('users_grant', tenant === undefined ? grant : { ...grant, tenant }))
        made.push(await fleet.subject.as(credential.name))
      }
      const [admin, developer] = made as [Driver, Driver]
      try {
        expect((await listEvents(admin, { minutes: 5, limit: 10 })).events).toEqual([])
        expect(await listBlocks(admin, { all: true, limit: 10 })).toMatchObject({ all_visible: false, blocks: [] })
        const seen = JSON.stringify([
          await listEvents(developer, { minutes: 5, limit: 10 }),
          await listBlocks(developer, { all: true, limit: 10 }),
        ])
        expect(seen).toContain('signature')
        expect(seen).not.toContain(here)
      } finally {
        for (const driver of made) await driver.close()
      }
    },
  )

  test('rows end after 90 days, as many at least as come', async () => {
    for (let n = 0; n < 15; n++) await report(1, { address: `192.0.2.${n}` })
    await clock('91 days')
    await report(1)
    expect(await rows()).toBe(1)
  })

  test('the ledger says that somebody was shut out and by whom let in, and holds no address', async () => {
    await report(20)
    await unblock(operator, { source: here, why: 'mended' })
    const found = await sql(
      `select action, subject, why, body from tms.ledger_inbox where action like 'security.%' order by id desc limit 2`,
    )
    expect(found.map(({ action }) => action)).toEqual(['security.unblock', 'security.block'])
    expect(JSON.stringify(found)).not.toContain(here)
  })

  test('a ledger that does not verify is one incident of the highest priority', async () => {
    const findings = [{ place: 'row 4711', what: 'another hash', expected: null, found: null }]
    const one = await reportBrokenLedger(operator, { findings, more: 0 })
    const two = await reportBrokenLedger(operator, { findings, more: 0 })
    expect(two).toEqual(one)
    expect(await sql(`select priority, type, dedupe_key, occurrences::int as n from tms.incidents`)).toEqual([
      { priority: 'P1', type: 'ledger_broken', dedupe_key: 'ledger:broken', n: 2 },
    ])
  })
})
